"""The dashboard's contents: what is shown of a Minga network, row by row.

Sums come from the recording rules, so that a picture of ten thousand peers reads a few series; what is drawn by machine
is cut to the ten that matter. A machine is a target that has our metrics, whatever its scrape job is called.
"""

import json

from deploy.monitoring.grafana import Panel, Query, Row, Unit, Variable, dashboard

NET = 'cluster=~"$cluster", namespace=~"$namespace"'
"""Selects the networks chosen at the top."""
RATE = "[$__rate_interval]"
TARGET = "on (cluster, namespace, job, instance)"

GOOD, BAD, UNEASY = "green", "red", "orange"


def dashboard_json() -> str:
    """The file that Grafana loads."""
    rows = [_overview(), _directory(), _lookups(), _transfers(), _peers(), _processes()]
    variables = [
        Variable("cluster", "Cluster", "label_values(minga_registry_build_info, cluster)"),
        Variable("namespace", "Network", 'label_values(minga_registry_build_info{cluster=~"$cluster"}, namespace)'),
    ]
    made = dashboard("minga", "Minga", "Peers, directory and transfers of a Minga network.", rows, variables)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _overview() -> Row:
    return Row(
        "Overview",
        [
            _stat(
                "Peers alive",
                "Leases that live, as the registry counts them: peers that others can find.",
                Unit.COUNT,
                f"sum(network:minga_registry_leases_alive:max{{{NET}}})",
            ),
            _stat(
                "Alerts firing",
                "Alerts of Minga that fire now. docs/operations.md says of each what to do.",
                Unit.COUNT,
                'count(ALERTS{alertname=~"Minga.*", alertstate="firing"}) or vector(0)',
                ((None, GOOD), (1, BAD)),
            ),
            _stat(
                "Redis",
                "Whether every registry reaches Redis. While none does, look-ups answer 503 and transfers go on.",
                Unit.COUNT,
                f"min(minga_registry_store_up{{{NET}}})",
                ((None, BAD), (1, GOOD)),
                {"0": "away", "1": "up"},
            ),
            _stat(
                "Received",
                "Payload bytes that all scraped peers receive in a second, downloads and uploads together.",
                Unit.BYTES_PER_SECOND,
                f"sum(network_source:minga_peer_received_bytes:rate5m{{{NET}}})",
            ),
            _stat(
                "Look-ups without answer",
                "Share of look-ups that found the store away. That nobody shares a name is an answer.",
                Unit.SHARE,
                f"max(network:minga_locator_lookups_unavailable:ratio_rate5m{{{NET}}})",
                ((None, GOOD), (0.01, UNEASY), (0.05, BAD)),
            ),
            _stat(
                "Downloads failed",
                "Share of the downloads of the last 15 minutes that failed; cancelled ones do not count.",
                Unit.SHARE,
                f"max(network:minga_peer_downloads_failed:ratio_increase15m{{{NET}}})",
                ((None, GOOD), (0.01, UNEASY), (0.05, BAD)),
            ),
            _stat(
                "Room left",
                "Free bytes of all scraped peers by their capacity. Single peers that are full: row Peers.",
                Unit.SHARE,
                f"sum(network:minga_peer_free_bytes:sum{{{NET}}}) "
                f"/ sum(network:minga_peer_capacity_bytes:sum{{{NET}}})",
                ((None, BAD), (0.05, UNEASY), (0.15, GOOD)),
            ),
            _stat(
                "Shared",
                "Bytes that peers share whole, every copy counted.",
                Unit.BYTES,
                f"sum(network:minga_peer_shared_bytes:sum{{{NET}}})",
            ),
            Panel(
                "Versions",
                "Which versions run, and how many processes of each: an upgrade is done when each part has one line.",
                Unit.COUNT,
                [Query(" or ".join(_version_count(part) for part in ("registry", "locator", "peer")))],
                kind="table",
                width=12,
                height=6,
            ),
            Panel(
                "Peers alive and scraped",
                "Alive: leases in the directory. Scraped: peers that answer Prometheus. Registered: those of them that "
                "have a lease. Fewer scraped than alive: targets are missing from the scrape configuration.",
                Unit.COUNT,
                [
                    Query(f"sum(network:minga_registry_leases_alive:max{{{NET}}})", "alive"),
                    Query(f"sum(network:minga_peer_build_info:count{{{NET}}})", "scraped"),
                    Query(f"sum(network:minga_peer_registered:sum{{{NET}}})", "registered"),
                ],
                width=12,
                height=6,
            ),
        ],
    )


def _directory() -> Row:
    return Row(
        "Directory",
        [
            Panel(
                "Leases",
                "Alive, and expired but not reaped yet, as each registry counted them last. Expired ones that do not "
                "go: the reaper does not get through.",
                Unit.COUNT,
                [Query(f"max by (state) (minga_registry_leases{{{NET}}})", "{{state}}")],
            ),
            Panel(
                "Heartbeats",
                "Answered heartbeats by what the peer was told. A burst of register_again or push_table: the directory "
                "was emptied and fills again.",
                Unit.PER_SECOND,
                [Query(f"sum by (action) (rate(minga_registry_heartbeats_total{{{NET}}}{RATE}))", "{{action}}")],
            ),
            Panel(
                "Failed calls",
                "Share of heartbeats and calls that the registry failed for its own reasons. MingaRegistryUnavailable "
                "tells of more than 5 %.",
                Unit.SHARE,
                [Query(f"network:minga_registry_calls_failed:ratio_rate5m{{{NET}}}", "failed {{namespace}}")],
            ),
            Panel(
                "Calls of the registry, 99th percentile",
                "By method, over all replicas. Heartbeats over standing streams are no calls; Redis shows their cost.",
                Unit.SECONDS,
                [
                    Query(
                        _worst("network_method:minga_registry_rpc_duration_seconds:p99_rate5m", "method"), "{{method}}"
                    )
                ],
            ),
            Panel(
                "Table pushes",
                "File tables that peers pushed, by how it ended. table_revision_mismatch is followed by a whole push.",
                Unit.PER_SECOND,
                [
                    Query(
                        f"sum by (outcome) (rate(minga_registry_table_pushes_total{{{NET}}}{RATE})) > 0",
                        "{{outcome}}",
                    ),
                    Query(f"sum(minga_registry_active_pushes{{{NET}}})", "under way"),
                ],
            ),
            Panel(
                "Duration of table pushes",
                "From the first message to the commit. Whole tables of many files take seconds, changes milliseconds.",
                Unit.SECONDS,
                [
                    Query(_quantile(0.5, "minga_registry_table_push_duration_seconds"), "half"),
                    Query(_quantile(0.99, "minga_registry_table_push_duration_seconds"), "99 %"),
                ],
            ),
            Panel(
                "Rows",
                "Rows of file tables that were put or removed by pushes, and those the reaper unlisted for dead peers.",
                Unit.PER_SECOND,
                [
                    Query(f"sum by (kind) (rate(minga_registry_pushed_rows_total{{{NET}}}{RATE}))", "{{kind}}"),
                    Query(f"sum(rate(minga_registry_reaped_rows_total{{{NET}}}{RATE}))", "reaped"),
                ],
            ),
            Panel(
                "Redis as the registry sees it, 99th percentile",
                "By operation, of all registries. When all rise together it is Redis or the network to it.",
                Unit.SECONDS,
                [
                    Query(
                        _worst("network_operation:minga_registry_redis_duration_seconds:p99_rate5m", "operation"),
                        "{{operation}}",
                    )
                ],
            ),
            Panel(
                "Redis calls by outcome",
                "Of registries and locators. unavailable: away or too slow; error: it answered with an error.",
                Unit.PER_SECOND,
                [
                    Query(
                        f"sum by (outcome) (rate(minga_registry_redis_duration_seconds_count{{{NET}}}{RATE}))",
                        "registry {{outcome}}",
                    ),
                    Query(
                        f"sum by (outcome) (rate(minga_locator_redis_duration_seconds_count{{{NET}}}{RATE}))",
                        "locator {{outcome}}",
                    ),
                ],
            ),
        ],
    )


def _lookups() -> Row:
    return Row(
        "Look-ups",
        [
            Panel(
                "Look-ups",
                "Names and contents asked for: somebody has it (hit), nobody has it (miss), the store was away.",
                Unit.PER_SECOND,
                [Query(f"sum by (result) (network_result:minga_locator_lookups:rate5m{{{NET}}})", "{{result}}")],
            ),
            Panel(
                "Duration of GET /v1/files/{name}",
                "Over all locators. MingaSlowLookups tells of a 99th percentile above 50 ms.",
                Unit.SECONDS,
                [
                    Query(
                        _quantile(0.5, "minga_locator_request_duration_seconds", 'route=~"/v1/files/[{]name.*"'), "half"
                    ),
                    Query(f"max(network:minga_locator_file_lookup_duration_seconds:p99_rate5m{{{NET}}})", "99 %"),
                ],
            ),
            Panel(
                "Duration by route, 99th percentile",
                "Every route of the API. Lists and searches take longer than look-ups.",
                Unit.SECONDS,
                [
                    Query(
                        _quantile(0.99, "minga_locator_request_duration_seconds", 'route=~"/v1/.*"', by="route"),
                        "{{route}}",
                    )
                ],
            ),
            Panel(
                "Requests by status",
                "4xx: mostly names that nobody shares. 5xx: the store is away, or too many requests are under way.",
                Unit.PER_SECOND,
                [
                    Query(
                        f"sum by (status) (rate(minga_locator_request_duration_seconds_count{{{NET}}}{RATE}))",
                        "{{status}}",
                    )
                ],
            ),
            Panel(
                "Requests under way",
                "By locator. Each refuses more than its limit with 503: add replicas before that.",
                Unit.COUNT,
                [Query(f"minga_locator_active_requests{{{NET}}}", "{{instance}}")],
            ),
            Panel(
                "Reads from the cache",
                "Share of reads that the short cache answered. It lives half a second: a low share is normal "
                "unless everyone asks for the same.",
                Unit.SHARE,
                [
                    Query(
                        f'sum(rate(minga_locator_cache_lookups_total{{{NET}, result="hit"}}{RATE})) '
                        f"/ (sum(rate(minga_locator_cache_lookups_total{{{NET}}}{RATE})) > 0)",
                        "cached",
                    )
                ],
                top=1,
            ),
            Panel(
                "Redis as the locator sees it, 99th percentile",
                "By operation, of all locators.",
                Unit.SECONDS,
                [
                    Query(
                        _worst("network_operation:minga_locator_redis_duration_seconds:p99_rate5m", "operation"),
                        "{{operation}}",
                    )
                ],
            ),
            Panel(
                "Placements",
                "Peers named to uploaders, all locators together.",
                Unit.PER_SECOND,
                [Query(f"sum(rate(minga_locator_placements_total{{{NET}}}{RATE}))", "peers named")],
            ),
        ],
    )


def _transfers() -> Row:
    return Row(
        "Transfers",
        [
            Panel(
                "Received, by what the sender was",
                "complete: it had the whole file. partial: it was still downloading itself, as in a swarm. "
                "upload: somebody put a file here.",
                Unit.BYTES_PER_SECOND,
                [
                    Query(
                        f"sum by (source) (network_source:minga_peer_received_bytes:rate5m{{{NET}}})",
                        "{{source}}",
                    )
                ],
            ),
            Panel(
                "Sent, by what the sender was",
                "The same bytes seen from the other side. Fewer than received: a sender is not scraped, or a command "
                "without a daemon sent them.",
                Unit.BYTES_PER_SECOND,
                [Query(f"sum by (source) (network_source:minga_peer_sent_bytes:rate5m{{{NET}}})", "{{source}}")],
            ),
            Panel(
                "Downloads by outcome",
                "Downloads that ended. MingaDownloadsFailing tells of more than 5 % that failed.",
                Unit.PER_SECOND,
                [Query(f"sum by (outcome) (network_outcome:minga_peer_downloads:rate5m{{{NET}}})", "{{outcome}}")],
            ),
            Panel(
                "Duration of downloads",
                "From asking for a file to its being in place; files of all sizes together.",
                Unit.SECONDS,
                [
                    Query(f"max(network:minga_peer_download_duration_seconds:p50_rate5m{{{NET}}})", "half"),
                    Query(_quantile(0.9, "minga_peer_download_duration_seconds"), "90 %"),
                ],
            ),
            Panel(
                "Times the least time",
                "How much longer downloads took than if every second had been like their best one; 1 is perfect. "
                "High: time goes into waiting for sources. MingaTransfersFarFromBound tells of a median above 3.",
                Unit.RATIO,
                [
                    Query(f"max(network:minga_peer_transfer_bound_ratio:p50_rate30m{{{NET}}})", "half"),
                    Query(_quantile(0.9, "minga_peer_transfer_bound_ratio"), "90 %"),
                ],
            ),
            Panel(
                "Under way",
                "Chunks being sent, chunk requests that wait for their turn, and downloads, of all scraped peers.",
                Unit.COUNT,
                [
                    Query(f"sum(minga_peer_active_serves{{{NET}}})", "chunks being sent"),
                    Query(f"sum(minga_peer_waiting_serves{{{NET}}})", "requests waiting"),
                    Query(f"sum(minga_peer_active_downloads{{{NET}}})", "downloads"),
                ],
            ),
            Panel(
                "Trouble with sources",
                "Late chunks asked of a second source, sources given up by reason, requests turned away as busy.",
                Unit.PER_SECOND,
                [
                    Query(f"sum(rate(minga_peer_hedged_requests_total{{{NET}}}{RATE}))", "hedged"),
                    Query(
                        f"sum by (reason) (rate(minga_peer_dropped_sources_total{{{NET}}}{RATE}))",
                        "dropped: {{reason}}",
                    ),
                    Query(f"sum(rate(minga_peer_busy_answers_total{{{NET}}}{RATE}))", "busy"),
                ],
            ),
            Panel(
                "Chunks that failed their digest",
                "Within 15 minutes. Any is one too many: a disk, memory or program of a source is not sound. They are "
                "thrown away, and their source is barred.",
                Unit.COUNT,
                [Query(f"sum(network:minga_peer_chunk_verification_failures:increase15m{{{NET}}})", "failed")],
            ),
            Panel(
                "Calls of peers, 99th percentile",
                "gRPC between peers by method; streams last as long as what they carry. The bulk path is not in it.",
                Unit.SECONDS,
                [Query(_quantile(0.99, "minga_peer_rpc_duration_seconds", by="method"), "{{method}}")],
            ),
        ],
    )


def _peers() -> Row:
    return Row(
        "Peers",
        [
            Panel(
                "Least room",
                "The ten scraped peers with the smallest share of their capacity left. MingaDiskAlmostFull tells of "
                "less than 5 %.",
                Unit.SHARE,
                [
                    Query(
                        f"bottomk(10, minga_peer_free_bytes{{{NET}}} / minga_peer_capacity_bytes{{{NET}}})",
                        "{{instance}}",
                    )
                ],
            ),
            Panel(
                "Space",
                "Of all scraped peers: what they may hold, what is free of it, what they share whole.",
                Unit.BYTES,
                [
                    Query(f"sum(network:minga_peer_capacity_bytes:sum{{{NET}}})", "capacity"),
                    Query(f"sum(network:minga_peer_free_bytes:sum{{{NET}}})", "free"),
                    Query(f"sum(network:minga_peer_shared_bytes:sum{{{NET}}})", "shared"),
                ],
            ),
            Panel(
                "Files shared",
                "By all scraped peers, every copy counted, and on the peer that shares most.",
                Unit.COUNT,
                [
                    Query(f"sum(minga_peer_shared_files{{{NET}}})", "all"),
                    Query(f"max(minga_peer_shared_files{{{NET}}})", "most on one peer"),
                ],
            ),
            Panel(
                "Busiest senders",
                "The ten peers that send most. One far above the others while downloads are slow: it is the only one "
                "that has what everyone wants.",
                Unit.BYTES_PER_SECOND,
                [
                    Query(
                        "topk(10, sum by (cluster, namespace, instance) "
                        f"(rate(minga_peer_sent_bytes_total{{{NET}}}{RATE})))",
                        "{{instance}}",
                    )
                ],
            ),
            Panel(
                "Hashing",
                "Bytes of shared files hashed a second. After a restart this should be near 0: digests are remembered.",
                Unit.BYTES_PER_SECOND,
                [Query(f"sum(rate(minga_peer_hashed_bytes_total{{{NET}}}{RATE}))", "hashed")],
            ),
            Panel(
                "Files not hashed yet",
                "Found on disk and not shared yet; all peers, and the one that is furthest behind.",
                Unit.COUNT,
                [
                    Query(f"sum(minga_peer_pending_hashes{{{NET}}})", "all"),
                    Query(f"max(minga_peer_pending_hashes{{{NET}}})", "most on one peer"),
                ],
            ),
            Panel(
                "Files found, by whether their digests were known",
                "hit: taken from the index. miss: had to be hashed. Misses at every restart: the state folder is lost.",
                Unit.PER_SECOND,
                [
                    Query(
                        f"sum by (result) (rate(minga_peer_hash_cache_lookups_total{{{NET}}}{RATE}))",
                        "{{result}}",
                    )
                ],
            ),
            Panel(
                "Disk errors",
                "Within 15 minutes, by reason, of all scraped peers.",
                Unit.COUNT,
                [Query(f"sum by (reason) (increase(minga_peer_disk_errors_total{{{NET}}}[15m]))", "{{reason}}")],
            ),
            Panel(
                "Peers without a lease",
                "Scraped peers that run but are not registered. MingaPeerNotRegistered names them.",
                Unit.COUNT,
                [
                    Query(
                        f"sum(network:minga_peer_build_info:count{{{NET}}}) "
                        f"- sum(network:minga_peer_registered:sum{{{NET}}})",
                        "not registered",
                    )
                ],
            ),
        ],
    )


def _processes() -> Row:
    services = ("registry", "locator")
    return Row(
        "Process resources",
        [
            Panel(
                "Processor of registries and locators",
                "Cores used. One process uses one core at most: near 1, add replicas.",
                Unit.CORES,
                [
                    Query(_of(part, f"rate(process_cpu_seconds_total{RATE})"), f"{part} {{{{instance}}}}")
                    for part in services
                ],
            ),
            Panel(
                "Memory of registries and locators",
                "Resident bytes. A registry takes file tables in batches; what stays is little.",
                Unit.BYTES,
                [Query(_of(part, "process_resident_memory_bytes"), f"{part} {{{{instance}}}}") for part in services],
            ),
            Panel(
                "File descriptors in use",
                "Share of the limit, the worst process of each part. A peer needs one for each connection.",
                Unit.SHARE,
                [
                    Query(f"max({_of(part, 'process_open_fds / process_max_fds')})", part)
                    for part in (*services, "peer")
                ],
                top=1,
            ),
            Panel(
                "Processor of peers",
                "Cores used: half of the peers below the first line, 99 % below the second, and the busiest.",
                Unit.CORES,
                _spread(_of("peer", f"rate(process_cpu_seconds_total{RATE})")),
            ),
            Panel(
                "Memory of peers",
                "Resident bytes, spread over peers in the same way.",
                Unit.BYTES,
                _spread(_of("peer", "process_resident_memory_bytes")),
            ),
            Panel(
                "Restarts within an hour",
                "Processes that began anew under the same address, by part.",
                Unit.COUNT,
                [
                    Query(f"sum({_of(part, 'changes(process_start_time_seconds[1h])')})", part)
                    for part in (*services, "peer")
                ],
            ),
        ],
    )


def _stat(
    title: str,
    description: str,
    unit: Unit,
    expr: str,
    steps: tuple[tuple[float | None, str], ...] = (),
    words: dict[str, str] | None = None,
) -> Panel:
    return Panel(title, description, unit, [Query(expr)], "stat", width=3, height=4, steps=steps, words=words or {})


def _version_count(part: str) -> str:
    named = f'label_replace(minga_{part}_build_info{{{NET}}}, "part", "{part}", "", "")'
    return f"count by (part, version) ({named})"


def _worst(record: str, label: str) -> str:
    """The greatest of the chosen networks, by a label."""
    return f"max by ({label}) ({record}{{{NET}}})"


def _quantile(share: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram over all processes that have it."""
    labels = ", ".join(filter(None, (by, "le")))
    selector = ", ".join((NET, *matchers))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{selector}}}{RATE})))"


def _of(part: str, expr: str) -> str:
    """Of a metric that every process of the world has: the series of our part."""
    return f"({expr}) and {TARGET} minga_{part}_build_info{{{NET}}}"


def _spread(expr: str) -> list[Query]:
    """Ten thousand peers in three lines."""
    return [
        Query(f"quantile(0.5, {expr})", "half"),
        Query(f"quantile(0.99, {expr})", "99 %"),
        Query(f"max({expr})", "most"),
    ]
