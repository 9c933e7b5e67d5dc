-- Takes over the totals that one owner has committed for one budget, forward only, and keeps the sum of all partitions.
--
-- KEYS[1] partitions  a hash: partition number -> packed {generation, position, people, updated_at_ms, numbers}
-- KEYS[2] aggregate   the sum of all partitions as JSON; only ever written when every partition is there
-- KEYS[3] people      how many people the aggregate counts
-- ARGV[1] channel, ARGV[2] budget, ARGV[3] generation, ARGV[4] partition count, then for each partition five values:
--   its number, position, people, updated_at_ms, and `numbers`: comma-separated, for each category its basis points
--   and its 101 counts; empty before the first submission.
-- Answers 1 if the aggregate moved, else 0.
--
-- Every number is an integer below 10^14, which a Lua number holds exactly and "%.14g" prints whole: ten thousand
-- basis points for each of ten billion people.

local function pack_numbers(text)
    local numbers = {}
    for number in string.gmatch(text, "%d+") do
        numbers[#numbers + 1] = tonumber(number)
    end
    return numbers
end

local generation = tonumber(ARGV[3])
local partition_count = tonumber(ARGV[4])
local moved = false

for i = 5, #ARGV, 5 do
    local partition = ARGV[i]
    local position = tonumber(ARGV[i + 1])
    local stored = redis.call("HGET", KEYS[1], partition)
    local known = stored and cmsgpack.unpack(stored)
    local forward = not known or generation > known[1] or (generation == known[1] and position > known[2])
    if forward then
        redis.call("HSET", KEYS[1], partition, cmsgpack.pack({
            generation, position, tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), pack_numbers(ARGV[i + 4]),
        }))
        moved = true
    end
end

-- Nothing new and nothing lost: there is nothing to do.
if not moved and redis.call("EXISTS", KEYS[2], KEYS[3]) == 2 then
    return 0
end

local positions, numbers, people, updated_at_ms = {}, {}, 0, 0
for partition = 0, partition_count - 1 do
    local stored = redis.call("HGET", KEYS[1], partition)
    local part = stored and cmsgpack.unpack(stored)
    if not part or part[1] ~= generation then
        return 0
    end
    positions[partition + 1] = part[2]
    people = people + part[3]
    updated_at_ms = math.max(updated_at_ms, part[4])
    for index, number in ipairs(part[5]) do
        numbers[index] = (numbers[index] or 0) + number
    end
end

-- Each category has its basis points and its counts, one after the other.
local stride = 102
local categories = {}
for first = 1, #numbers, stride do
    categories[#categories + 1] = '{"basis_points":' .. string.format("%.14g", numbers[first])
        .. ',"people_by_percent":[' .. table.concat(numbers, ",", first + 1, first + stride - 1) .. "]}"
end

local count = string.format("%.14g", people)
redis.call("SET", KEYS[2], '{"generation":' .. ARGV[3]
    .. ',"people":' .. count
    .. ',"updated_at_ms":' .. string.format("%.14g", updated_at_ms)
    .. ',"positions":[' .. table.concat(positions, ",")
    .. '],"categories":[' .. table.concat(categories, ",") .. "]}")
redis.call("SET", KEYS[3], count)
redis.call("PUBLISH", ARGV[1], ARGV[2])
return 1
