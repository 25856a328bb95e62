#!/bin/sh
# Users of Redis for registry and locator, with new passwords.
#
#   users.sh FOLDER    writes FOLDER/users.acl for redis-server's --aclfile, which has no password in clear, and the
#                      passwords into FOLDER/registry and FOLDER/locator, for password_file in MINGA_REDIS_URL
#
# Files that are there stay: run it in a new folder for new passwords. What each user may do, and how passwords are
# exchanged under way: docs/running-redis.md.
set -eu
umask 077
folder=${1:?usage: users.sh FOLDER}
mkdir -p "$folder"
if [ -e "$folder/users.acl" ]; then
  echo "users.sh: $folder/users.acl is there already" >&2
  exit 0
fi

# user NAME RULES: a new password into a file, and a line with its hash.
user() {
  head -c 24 /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_' >"$folder/$1"
  echo "user $1 on #$(sha256sum <"$folder/$1" | cut -d' ' -f1) $2"
}

common='resetchannels -@all +ping +select +role +info +asking +cluster|slots +cluster|info'
{
  # For health checks.
  echo 'user default on nopass resetkeys resetchannels -@all +ping'
  user registry "resetkeys ~minga:v2:* $common +eval +evalsha +time +get +set +exists +rename +del +persist +expire +pexpire +pttl +hget +hset +hmget +hgetall +hdel +hlen +hkeys +hexists +hsetnx +hscan +hrandfield +zadd +zrem +zscore +zcount +zrangebyscore"
  user locator "resetkeys %R~minga:v2:* $common +exists +get +hget +hmget +hlen +hkeys +hrandfield +pttl +zcard +zrange +zrangebylex (~minga:v2:* -@all +eval +evalsha) (~minga:v2:placement-cursor -@all +incrby)"
} >"$folder/users.new"
# Last, so that it is whole where it is.
mv "$folder/users.new" "$folder/users.acl"
