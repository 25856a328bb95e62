-- Draws a fencing token, or the number of a data loss.
-- KEYS: tokens, or data_loss
-- ARGV: none
-- Returns it: microseconds of Redis' clock, greater than all that were drawn before.
return draw(KEYS[1])
