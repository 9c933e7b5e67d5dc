-- Charges requests, one after the other, each to several rate limits: to all of them if it is within all, else to none.
--
-- KEYS: one for each limit of each request.
-- ARGV: the number of quotas, and for each quota algorithm, limit, window in ms and burst; then for each request the number
-- of its limits, and for each limit the index of its quota and the cost.
-- Returns for each limit three integers: the wait in ms (0: within the limit, -1: never), the units that remain, and the
-- milliseconds until all units are back.
--
-- `runtime/src/limits` decides the same, with the same integers; a test compares both. The time is this server's alone.
-- All products are below 2^52, which a Lua number represents exactly. A damaged value counts as nothing spent. A key
-- expires a second after all its units are back, so that an expired key says what a missing one does.

local SLOTS = 10
local EXPIRY_MARGIN_MS = 1000

-- Each is called many times: a local is found faster than a global or its field.
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local format, match, rep = string.format, string.match, string.rep
local tonumber = tonumber
local ARGV, KEYS = ARGV, KEYS

local clock = redis.call("TIME")
local now = clock[1] * 1000 + floor(clock[2] / 1000)

-- The pattern of a stored text of so many numbers, and its format.
local function decimals(count)
    return "^(%d+)" .. rep(" (%d+)", count - 1) .. "$", "%d" .. rep(" %d", count - 1)
end

local PAIR, PAIR_FORMAT = decimals(2)

-- The rules of each algorithm: `load` advances a stored text to now; `wait`, `charge`, `remaining`, `reset` and `store` use
-- that state.

local bucket = {}

function bucket.load(quota, text)
    local spent, at = match(text, PAIR)
    spent, at = tonumber(spent) or 0, tonumber(at) or now
    local elapsed = max(0, now - at)
    -- A bucket that is full again needs no exact product.
    spent = elapsed > spent / quota.limit and 0 or max(0, spent - elapsed * quota.limit)
    return { spent = spent, at = max(now, at) }
end

function bucket.wait(quota, state, cost)
    local missing = state.spent + cost * quota.window - quota.capacity * quota.window
    if missing <= 0 then
        return 0
    end
    return state.at - now + ceil(missing / quota.limit)
end

function bucket.charge(quota, state, cost)
    state.spent = state.spent + cost * quota.window
end

function bucket.remaining(quota, state)
    return floor(max(0, quota.capacity * quota.window - state.spent) / quota.window)
end

function bucket.reset(quota, state)
    if state.spent == 0 then
        return 0
    end
    return state.at - now + ceil(state.spent / quota.limit)
end

function bucket.store(state)
    return format(PAIR_FORMAT, state.spent, state.at)
end

local fixed = {}

function fixed.load(quota, text)
    local current = now - now % quota.window
    local start, count = match(text, PAIR)
    start = tonumber(start)
    if not start or current > start then
        return { start = current, count = 0 }
    end
    return { start = start, count = tonumber(count) }
end

function fixed.wait(quota, state, cost)
    if state.count + cost <= quota.capacity then
        return 0
    end
    return max(0, state.start + quota.window - now)
end

function fixed.charge(_, state, cost)
    state.count = state.count + cost
end

function fixed.remaining(quota, state)
    return max(0, quota.capacity - state.count)
end

function fixed.reset(quota, state)
    if state.count == 0 then
        return 0
    end
    return max(0, state.start + quota.window - now)
end

function fixed.store(state)
    return format(PAIR_FORMAT, state.start, state.count)
end

-- `counts[1]` is the newest slot, as in the state of Rust; `spent` is the sum of all.
local SLIDING, SLIDING_FORMAT = decimals(SLOTS + 2)

local sliding = {}

function sliding.load(quota, text)
    local slot_ms = ceil(quota.window / SLOTS)
    local current = floor(now / slot_ms)
    local counts = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
    -- The number of the newest slot, and behind it the counts.
    local stored = { match(text, SLIDING) }
    local stored_newest = tonumber(stored[1])
    if not stored_newest then
        return { newest = current, counts = counts, spent = 0, slot_ms = slot_ms }
    end
    local newest, spent = max(current, stored_newest), 0
    local passed = newest - stored_newest
    for slot = passed + 1, SLOTS + 1 do
        local count = tonumber(stored[slot - passed + 1])
        counts[slot] = count
        spent = spent + count
    end
    return { newest = newest, counts = counts, spent = spent, slot_ms = slot_ms }
end

function sliding.wait(quota, state, cost)
    local left = state.spent
    if left + cost <= quota.capacity then
        return 0
    end
    for passed = 1, SLOTS + 1 do
        left = left - state.counts[SLOTS + 2 - passed]
        if left + cost <= quota.capacity then
            return max(0, (state.newest + passed) * state.slot_ms - now)
        end
    end
    return quota.window
end

function sliding.charge(_, state, cost)
    state.counts[1] = state.counts[1] + cost
    state.spent = state.spent + cost
end

function sliding.remaining(quota, state)
    return max(0, quota.capacity - state.spent)
end

function sliding.reset(_, state)
    for slot = 1, SLOTS + 1 do
        if state.counts[slot] > 0 then
            return max(0, (state.newest - (slot - 1) + SLOTS + 1) * state.slot_ms - now)
        end
    end
    return 0
end

function sliding.store(state)
    return format(SLIDING_FORMAT, state.newest, unpack(state.counts))
end

local ALGORITHMS = {
    ["token-bucket"] = { rules = bucket, capacity = function(_, burst) return burst end },
    ["leaky-bucket"] = { rules = bucket, capacity = function(_, burst) return burst + 1 end },
    ["fixed-window"] = { rules = fixed, capacity = function(limit, burst) return limit + burst end },
    ["sliding-window"] = { rules = sliding, capacity = function(limit, burst) return limit + burst end },
}

local next_arg = 1
local quotas = {}
local function next_number()
    local number = tonumber(ARGV[next_arg])
    next_arg = next_arg + 1
    return number
end

for index = 1, next_number() do
    local algorithm = ALGORITHMS[ARGV[next_arg]]
    next_arg = next_arg + 1
    local limit, window = next_number(), next_number()
    local capacity = algorithm.capacity(limit, next_number())
    quotas[index] = { rules = algorithm.rules, limit = limit, window = window, capacity = capacity }
end

-- Lua's stack has room for 8,000 values.
local MAX_UNPACKED = 1000
local texts = {}
for first = 1, #KEYS, MAX_UNPACKED do
    local last = min(first + MAX_UNPACKED - 1, #KEYS)
    for index, text in ipairs(redis.call("MGET", unpack(KEYS, first, last))) do
        texts[first + index - 1] = text
    end
end
-- By key, since several requests may be charged to one: the state, and once it has changed the quota and the reset.
local states, changed, resets = {}, {}, {}

local reply = {}
-- Of each limit of a request.
local limits, costs = {}, {}
local first = 1
while first <= #KEYS do
    local last = first + next_number() - 1
    local within_all = true
    for index = first, last do
        local key, quota, cost = KEYS[index], quotas[next_number()], next_number()
        local state = states[key]
        if not state then
            -- A missing value is `false`.
            state = quota.rules.load(quota, texts[index] or "")
            states[key] = state
        end
        local wait = cost > quota.capacity and -1 or quota.rules.wait(quota, state, cost)
        within_all = within_all and wait == 0
        limits[index], costs[index] = quota, cost
        reply[3 * index - 2] = wait
    end
    for index = first, last do
        local key, quota, cost = KEYS[index], limits[index], costs[index]
        local rules, state = quota.rules, states[key]
        local is_charged = within_all and cost > 0
        if is_charged then
            rules.charge(quota, state, cost)
        end
        local reset = rules.reset(quota, state)
        if is_charged then
            changed[key], resets[key] = quota, reset
        end
        reply[3 * index - 1] = rules.remaining(quota, state)
        reply[3 * index] = reset
    end
    first = last + 1
end

for key, quota in pairs(changed) do
    local expiry = resets[key] + EXPIRY_MARGIN_MS
    redis.call("SET", key, quota.rules.store(states[key]), "PX", format("%d", expiry))
end
return reply
