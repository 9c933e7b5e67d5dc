-- Tries a one-time code: right, it is used up; wrong, it has one try less; without tries left it is void.
--
-- KEYS: the code.
-- ARGV: keyed hash of the code that was entered, keyed hash of the client (empty if unknown), tries of one client.
-- Returns 1 if the code was right, else 0. Of two calls with the right code, one returns 1.
--
-- A client without tries of its own left takes none from the code, and is told nothing about it. Both hashes of codes
-- are keyed, so what a client enters determines no byte that is compared here.

local client = "tries_of:" .. ARGV[2]
local stored = redis.call("HMGET", KEYS[1], "code", "tries", client)
local tries = tonumber(stored[2] or 0) or 0
local is_known = ARGV[2] ~= ""
if is_known and (tonumber(stored[3] or 0) or 0) >= tonumber(ARGV[3]) then
    return 0
end
local is_right = stored[1] == ARGV[1] and tries > 0
if is_right or tries <= 1 then
    redis.call("DEL", KEYS[1])
else
    redis.call("HINCRBY", KEYS[1], "tries", -1)
    if is_known then
        redis.call("HINCRBY", KEYS[1], client, 1)
    end
end
return is_right and 1 or 0
