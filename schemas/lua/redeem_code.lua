-- Tries a one-time code: right, it is used up; wrong, it has one try less; without tries left it is void.
--
-- KEYS: the code.
-- ARGV: keyed hash of the code that was entered.
-- Returns 1 if the code was right, else 0. Of two calls with the right code, one returns 1.
--
-- Both hashes are keyed, so what a client enters determines no byte that is compared here.

local stored = redis.call("HMGET", KEYS[1], "code", "tries")
local tries = tonumber(stored[2] or 0) or 0
local is_right = stored[1] == ARGV[1] and tries > 0
if is_right or tries <= 1 then
    redis.call("DEL", KEYS[1])
else
    redis.call("HINCRBY", KEYS[1], "tries", -1)
end
return is_right and 1 or 0
