-- Charges one request to several rate limits: to all of them if it is within all, else to none.
--
-- KEYS: one for each limit.
-- ARGV: for each limit five values: algorithm, limit, window in ms, burst, cost.
-- Returns for each limit three integers: the wait in ms (0: within the limit, -1: never), the units that remain, and the
-- milliseconds until all units are back.
--
-- `runtime/src/limits` decides the same, with the same integers; a test compares both. The time is this server's alone.
-- All products are below 2^52, which a Lua number represents exactly. A damaged value counts as nothing spent. A key
-- expires a second after all its units are back, so that an expired key says what a missing one does.

local SLOTS = 10
local EXPIRY_MARGIN_MS = 1000

local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function integers(text, count)
    local numbers = {}
    for word in string.gmatch(text or "", "%d+") do
        numbers[#numbers + 1] = tonumber(word)
    end
    if #numbers ~= count then
        return nil
    end
    return numbers
end

-- Each algorithm: `load` advances a stored text to now; `wait`, `charge`, `remaining`, `reset` and `store` use that state.

local bucket = {}

function bucket.load(limit, text)
    local numbers = integers(text, 2) or { 0, now }
    local elapsed = math.max(0, now - numbers[2])
    -- A bucket that is full again needs no exact product.
    local spent = elapsed > numbers[1] / limit.limit and 0 or math.max(0, numbers[1] - elapsed * limit.limit)
    return { spent = spent, at = math.max(now, numbers[2]) }
end

function bucket.wait(limit, state)
    local missing = state.spent + limit.cost * limit.window - limit.capacity * limit.window
    if missing <= 0 then
        return 0
    end
    return state.at - now + math.ceil(missing / limit.limit)
end

function bucket.charge(limit, state)
    state.spent = state.spent + limit.cost * limit.window
end

function bucket.remaining(limit, state)
    return math.floor(math.max(0, limit.capacity * limit.window - state.spent) / limit.window)
end

function bucket.reset(limit, state)
    if state.spent == 0 then
        return 0
    end
    return state.at - now + math.ceil(state.spent / limit.limit)
end

function bucket.store(state)
    return string.format("%.0f %.0f", state.spent, state.at)
end

local fixed = {}

function fixed.load(limit, text)
    local current = now - now % limit.window
    local numbers = integers(text, 2)
    if not numbers or current > numbers[1] then
        return { start = current, count = 0 }
    end
    return { start = numbers[1], count = numbers[2] }
end

function fixed.wait(limit, state)
    if state.count + limit.cost <= limit.capacity then
        return 0
    end
    return math.max(0, state.start + limit.window - now)
end

function fixed.charge(limit, state)
    state.count = state.count + limit.cost
end

function fixed.remaining(limit, state)
    return math.max(0, limit.capacity - state.count)
end

function fixed.reset(limit, state)
    if state.count == 0 then
        return 0
    end
    return math.max(0, state.start + limit.window - now)
end

function fixed.store(state)
    return string.format("%.0f %.0f", state.start, state.count)
end

-- `counts[1]` is the newest slot, as in the state of Rust.
local sliding = {}

local function slot_ms(limit)
    return math.ceil(limit.window / SLOTS)
end

local function spent(state)
    local sum = 0
    for slot = 1, SLOTS + 1 do
        sum = sum + state.counts[slot]
    end
    return sum
end

function sliding.load(limit, text)
    local current = math.floor(now / slot_ms(limit))
    local numbers = integers(text, SLOTS + 2)
    local newest = math.max(current, numbers and numbers[1] or 0)
    local state = { newest = newest, counts = {} }
    local passed = numbers and newest - numbers[1] or SLOTS + 1
    for slot = 1, SLOTS + 1 do
        state.counts[slot] = slot > passed and numbers[slot - passed + 1] or 0
    end
    return state
end

function sliding.wait(limit, state)
    local left = spent(state)
    if left + limit.cost <= limit.capacity then
        return 0
    end
    for passed = 1, SLOTS + 1 do
        left = left - state.counts[SLOTS + 2 - passed]
        if left + limit.cost <= limit.capacity then
            return math.max(0, (state.newest + passed) * slot_ms(limit) - now)
        end
    end
    return limit.window
end

function sliding.charge(limit, state)
    state.counts[1] = state.counts[1] + limit.cost
end

function sliding.remaining(limit, state)
    return math.max(0, limit.capacity - spent(state))
end

function sliding.reset(limit, state)
    for slot = 1, SLOTS + 1 do
        if state.counts[slot] > 0 then
            return math.max(0, (state.newest - (slot - 1) + SLOTS + 1) * slot_ms(limit) - now)
        end
    end
    return 0
end

function sliding.store(state)
    local words = { string.format("%.0f", state.newest) }
    for slot = 1, SLOTS + 1 do
        words[slot + 1] = string.format("%.0f", state.counts[slot])
    end
    return table.concat(words, " ")
end

local ALGORITHMS = {
    ["token-bucket"] = { rules = bucket, capacity = function(_, burst) return burst end },
    ["leaky-bucket"] = { rules = bucket, capacity = function(_, burst) return burst + 1 end },
    ["fixed-window"] = { rules = fixed, capacity = function(limit, burst) return limit + burst end },
    ["sliding-window"] = { rules = sliding, capacity = function(limit, burst) return limit + burst end },
}

local limits = {}
local within_all = true
for index, key in ipairs(KEYS) do
    local first = 5 * (index - 1)
    local algorithm = ALGORITHMS[ARGV[first + 1]]
    local limit = {
        key = key,
        rules = algorithm.rules,
        limit = tonumber(ARGV[first + 2]),
        window = tonumber(ARGV[first + 3]),
        cost = tonumber(ARGV[first + 5]),
    }
    limit.capacity = algorithm.capacity(limit.limit, tonumber(ARGV[first + 4]))
    limit.state = limit.rules.load(limit, redis.call("GET", key))
    limit.wait = limit.cost > limit.capacity and -1 or limit.rules.wait(limit, limit.state)
    within_all = within_all and limit.wait == 0
    limits[index] = limit
end

local reply = {}
for _, limit in ipairs(limits) do
    if within_all and limit.cost > 0 then
        limit.rules.charge(limit, limit.state)
        local expiry = limit.rules.reset(limit, limit.state) + EXPIRY_MARGIN_MS
        redis.call("SET", limit.key, limit.rules.store(limit.state), "PX", string.format("%.0f", expiry))
    end
    reply[#reply + 1] = limit.wait
    reply[#reply + 1] = limit.rules.remaining(limit, limit.state)
    reply[#reply + 1] = limit.rules.reset(limit, limit.state)
end
return reply
