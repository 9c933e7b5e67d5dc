-- Stores a one-time code in place of an earlier one, if its mailbox may get another mail.
--
-- KEYS: the code, the times of the mailbox's last mails.
-- ARGV: keyed hash of the code, its lifetime in ms, its tries, and for each limit of mails: their number, window in ms.
-- Returns 1 if the code was stored and the mail counted, else 0: nothing has changed, and an earlier code stays valid.
--
-- The time is this server's alone. Only keyed hashes and times are stored.

local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local times = redis.call("LRANGE", KEYS[2], 0, -1)

local most, longest = 0, 0
for index = 4, #ARGV, 2 do
    local limit, window = tonumber(ARGV[index]), tonumber(ARGV[index + 1])
    local recent = 0
    for _, time in ipairs(times) do
        if (tonumber(time) or 0) > now - window then
            recent = recent + 1
        end
    end
    if recent >= limit then
        return 0
    end
    most, longest = math.max(most, limit), math.max(longest, window)
end

redis.call("LPUSH", KEYS[2], string.format("%.0f", now))
redis.call("LTRIM", KEYS[2], 0, most - 1)
redis.call("PEXPIRE", KEYS[2], longest)
-- With the tries that clients had of the earlier code.
redis.call("DEL", KEYS[1])
redis.call("HSET", KEYS[1], "code", ARGV[1], "tries", ARGV[3])
redis.call("PEXPIRE", KEYS[1], ARGV[2])
return 1
