-- Publishes committed totals of one budget in some partitions, moving forward only, and updates the sum of all partitions.
--
-- KEYS[1] partitions  a hash: partition number -> packed {term, position, people, updated_at_ms, numbers}
-- KEYS[2] aggregate   the sum of all partitions as JSON; written only if all partitions are present
-- KEYS[3] people      number of people in the aggregate
-- ARGV[1] channel, ARGV[2] budget, ARGV[3] term, ARGV[4] generation, ARGV[5] log, ARGV[6] partition count, then for each
--   partition five values: number, position, people, updated_at_ms, and `numbers`: comma-separated, for each category its
--   basis points and its 101 counts; empty before the first submission.
-- Returns 1 if the aggregate was written, else 0.
--
-- All numbers are integers below 10^14, which a Lua number represents exactly and "%.14g" prints in full: 10,000 basis
-- points for each of ten billion people.

local function pack_numbers(text)
    local numbers = {}
    for number in string.gmatch(text, "%d+") do
        numbers[#numbers + 1] = tonumber(number)
    end
    return numbers
end

-- Returns the stored totals of a partition, or nil. Damaged totals count as absent: the owner publishes them again.
local function stored_part(partition)
    local stored = redis.call("HGET", KEYS[1], partition)
    local read, part = pcall(cmsgpack.unpack, stored or "")
    if stored and read and type(part) == "table" and #part == 5 and type(part[5]) == "table" then
        return part
    end
    return nil
end

-- Delete keys of another type, which another program must have written: they would block publishing forever.
for index, kind in ipairs({ "hash", "string", "string" }) do
    local found = redis.call("TYPE", KEYS[index]).ok
    if found ~= kind and found ~= "none" then
        redis.call("DEL", KEYS[index])
    end
end

local term = tonumber(ARGV[3])
local partition_count = tonumber(ARGV[6])
local moved = false

for i = 7, #ARGV, 5 do
    local partition = ARGV[i]
    local position = tonumber(ARGV[i + 1])
    local stored = stored_part(partition)
    local forward = not stored or term > stored[1] or (term == stored[1] and position > stored[2])
    if forward then
        redis.call("HSET", KEYS[1], partition, cmsgpack.pack({
            term, position, tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), pack_numbers(ARGV[i + 4]),
        }))
        moved = true
    end
end

-- No partition moved and the aggregate is present: nothing to do.
if not moved and redis.call("EXISTS", KEYS[2], KEYS[3]) == 2 then
    return 0
end

local positions, numbers, people, updated_at_ms = {}, {}, 0, 0
for partition = 0, partition_count - 1 do
    local part = stored_part(partition)
    if part and part[1] < term then
        -- Until all partitions are in the new term, the aggregate of the previous term would become stale: delete it, so
        -- that readers query the store.
        redis.call("DEL", KEYS[2], KEYS[3])
        return 0
    end
    if not part or part[1] > term then
        return 0
    end
    -- A partition without submissions has no categories; all others must have the same number.
    if #numbers > 0 and #part[5] > 0 and #numbers ~= #part[5] then
        return redis.error_reply("partitions with different numbers of categories")
    end
    positions[partition + 1] = part[2]
    people = people + part[3]
    updated_at_ms = math.max(updated_at_ms, part[4])
    for index, number in ipairs(part[5]) do
        numbers[index] = (numbers[index] or 0) + number
    end
end

-- For each category: its basis points, then its 101 counts.
local stride = 102
local categories = {}
for first = 1, #numbers, stride do
    categories[#categories + 1] = '{"basis_points":' .. string.format("%.14g", numbers[first])
        .. ',"people_by_percent":[' .. table.concat(numbers, ",", first + 1, first + stride - 1) .. "]}"
end

local count = string.format("%.14g", people)
redis.call("SET", KEYS[2], '{"term":' .. ARGV[3]
    .. ',"generation":' .. ARGV[4]
    .. ',"log":' .. ARGV[5]
    .. ',"people":' .. count
    .. ',"updated_at_ms":' .. string.format("%.14g", updated_at_ms)
    .. ',"positions":[' .. table.concat(positions, ",")
    .. '],"categories":[' .. table.concat(categories, ",") .. "]}")
redis.call("SET", KEYS[3], count)
redis.call("PUBLISH", ARGV[1], ARGV[2])
return 1
