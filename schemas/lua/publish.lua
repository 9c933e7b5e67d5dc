-- Publishes committed totals of one budget in some partitions, moving forward only, and keeps the sum of all partitions.
--
-- KEYS[1] partitions  a hash: partition number -> MessagePack of {term, position, people, updated_at_ms, numbers}, where
--   `numbers` has for each category its basis points and its 101 counts, and is empty before the first submission; behind
--   the array the integer 1 if the budget is closed in the partition, and the number of annulled people; zeros at the
--   end are left out
-- KEYS[2] aggregate   the sum of all partitions as JSON; written only if all partitions are present
-- KEYS[3] people      number of people in the aggregate
-- KEYS[4], KEYS[5]    copies of KEYS[2] and KEYS[3] for other programs, of the default budget only; never read here
-- ARGV[1] channel, ARGV[2] budget, ARGV[3] term, ARGV[4] generation, ARGV[5] log, ARGV[6] partition count, then for each
--   partition three values: number, position, and what the hash shall hold; or an empty string, which publishes nothing
--   and only compares positions.
-- Returns the compared partitions whose totals are missing or older here.
--
-- The aggregate is also the running sum: a move subtracts the partition's former numbers and adds its new ones, so its
-- cost does not depend on the number of partitions. The aggregate names the position of each partition that it contains.
-- Where these are not those of the hash, or its numbers are inconsistent, all partitions are added up again. That covers
-- evicted keys, damage, and the script of the previous release, which writes both keys and adds up all partitions.
--
-- All numbers are integers below 10^14, which a Lua number represents exactly and "%.14g" prints in full: 10,000 basis
-- points for each of ten billion people. Sums and differences of them are exact.

local STRIDE = 102 -- numbers of one category
local BASIS_POINTS_PER_PERSON = 10000

local term = tonumber(ARGV[3])
local partition_count = tonumber(ARGV[6])

-- Returns a partition's totals, or nil. Damaged totals count as absent: the owner publishes them again.
local function unpack_part(packed)
    local read, part, closed, annulled = pcall(cmsgpack.unpack, packed or "")
    if not read or type(part) ~= "table" or #part ~= 5 or type(part[5]) ~= "table" then
        return nil
    end
    for index = 1, 4 do
        if type(part[index]) ~= "number" then
            return nil
        end
    end
    part.closed = closed == 1 and 1 or 0
    part.annulled = type(annulled) == "number" and annulled or 0
    return part
end

local function stored_part(partition)
    return unpack_part(redis.call("HGET", KEYS[1], partition))
end

-- Returns term and position of a partition's totals, or nil, without unpacking the numbers: both follow the array's
-- header, which is one byte.
local function stored_version(partition)
    local packed = redis.call("HGET", KEYS[1], partition)
    local read, _, part_term, position = pcall(cmsgpack.unpack_limit, packed or "", 2, 1)
    if read and type(part_term) == "number" and type(position) == "number" then
        return part_term, position
    end
    return nil
end

-- Returns the start of an aggregate: what is in front of its categories, and maybe a little more.
local function aggregate_head(key)
    return redis.pcall("GETRANGE", key, 0, 200 + 21 * partition_count)
end

-- Returns term and positions of the aggregate, or nil. An aggregate of another partition count has no positions here: it
-- is of another term, or damaged.
local function aggregate_version()
    local head = aggregate_head(KEYS[2])
    local aggregate_term = tonumber((string.match(head, '^{"term":(%d+),')))
    if not aggregate_term then
        return nil
    end
    local positions = {}
    local list = string.match(head, '^{"term":%d+,[^%[]*,"positions":%[([%d,]*)%]')
    for position in string.gmatch(list or "", "%d+") do
        positions[#positions + 1] = tonumber(position)
    end
    if #positions ~= partition_count then
        if aggregate_term == term then
            return nil
        end
        positions = {}
    end
    return { term = aggregate_term, positions = positions }
end

-- Delete keys of another type, which another program must have written: they would block publishing forever.
for index, kind in ipairs({ "hash", "string", "string" }) do
    local found = redis.call("TYPE", KEYS[index]).ok
    if found ~= kind and found ~= "none" then
        redis.call("DEL", KEYS[index])
    end
end

local aggregate = aggregate_version()

-- Returns whether the cache has a partition at this position or a later one.
local function is_current(partition, position)
    if aggregate and aggregate.term > term then
        return true
    end
    if aggregate and aggregate.term == term and (aggregate.positions[partition + 1] or -1) >= position then
        return redis.call("HEXISTS", KEYS[1], partition) == 1
    end
    local part_term, stored = stored_version(partition)
    return part_term and (part_term > term or (part_term == term and stored >= position))
end

-- Returns whether totals at this position are newer than the stored ones. Where Redis has evicted the hash and kept the
-- aggregate, a late publication must not get behind what readers have seen.
local function is_forward(partition, position, stored)
    if stored then
        return term > stored[1] or (term == stored[1] and position > stored[2])
    end
    return not aggregate or term > aggregate.term
        or (term == aggregate.term and position >= (aggregate.positions[partition + 1] or 0))
end

local moves, outdated = {}, {}
for i = 7, #ARGV, 3 do
    local partition, position, packed = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2]
    if packed == "" then
        if not is_current(partition, position) then
            outdated[#outdated + 1] = partition
        end
    else
        local stored = stored_part(partition)
        if is_forward(partition, position, stored) then
            redis.call("HSET", KEYS[1], partition, packed)
            moves[#moves + 1] = { partition = partition, from = stored, to = unpack_part(packed) }
        end
    end
end

if aggregate and aggregate.term > term then
    return outdated
end
if aggregate and aggregate.term < term then
    -- Until all partitions are in the new term, the aggregate of the previous term would become stale: delete it, so
    -- that readers query the store.
    redis.call("DEL", unpack(KEYS, 2))
    aggregate = nil
end
-- Returns whether no key was evicted, and the copy is up to date: the previous release writes none.
local function is_intact()
    return redis.call("EXISTS", unpack(KEYS, 2)) == #KEYS - 1
        and (#KEYS == 3 or aggregate_head(KEYS[4]) == aggregate_head(KEYS[2]))
end

if #moves == 0 and aggregate and is_intact() then
    return outdated
end

local function add(numbers, part, sign)
    local more = part[5]
    for index = 1, #more do
        numbers[index] = (numbers[index] or 0) + sign * more[index]
    end
end

-- Returns whether each category counts everyone once, and all categories together everyone's 100 %.
local function is_consistent(sum)
    local numbers, basis_points = sum.numbers, 0
    for first = 1, #numbers, STRIDE do
        local people = 0
        for index = first + 1, first + STRIDE - 1 do
            if numbers[index] < 0 then
                return false
            end
            people = people + numbers[index]
        end
        if people ~= sum.people or numbers[first] < 0 then
            return false
        end
        basis_points = basis_points + numbers[first]
    end
    return basis_points == sum.people * BASIS_POINTS_PER_PERSON and sum.closed >= 0 and sum.closed <= partition_count
        and sum.annulled >= 0
end

-- Returns the aggregate with the moved partitions replaced, or nil if it does not contain their former totals. Raises an
-- error if the aggregate is damaged.
local function moved_sum()
    local stored = cjson.decode(redis.call("GET", KEYS[2]))
    local sum = { positions = stored.positions, numbers = {}, people = stored.people, updated_at_ms = stored.updated_at_ms,
        closed = stored.closed_partitions, annulled = stored.annulled }
    if type(sum.closed) ~= "number" or type(sum.annulled) ~= "number" then
        return nil -- an earlier release wrote it
    end
    local numbers, length = sum.numbers, 0
    for _, category in ipairs(stored.categories) do
        numbers[length + 1] = category.basis_points
        for index = 1, STRIDE - 1 do
            numbers[length + 1 + index] = category.people_by_percent[index]
        end
        length = length + STRIDE
    end
    for _, move in ipairs(moves) do
        local from, to, index = move.from, move.to, move.partition + 1
        if not from or from[1] ~= term or from[2] ~= sum.positions[index] or to[4] < from[4] then
            return nil
        end
        if length == 0 then
            length = #to[5]
        end
        -- A partition without submissions has no categories; all others must have the same number.
        if #to[5] < #from[5] or (#to[5] > 0 and #to[5] ~= length) or (#from[5] > 0 and #from[5] ~= length) then
            return nil
        end
        sum.positions[index] = to[2]
        sum.people = sum.people - from[3] + to[3]
        sum.closed = sum.closed - from.closed + to.closed
        sum.annulled = sum.annulled - from.annulled + to.annulled
        sum.updated_at_ms = math.max(sum.updated_at_ms, to[4])
        add(numbers, from, -1)
        add(numbers, to, 1)
    end
    return is_consistent(sum) and sum or nil
end

-- Returns the sum of all partitions; or nil while one is missing or of another term, and a fault if there is one.
local function full_sum()
    if redis.call("HLEN", KEYS[1]) < partition_count then
        return nil
    end
    for partition = 0, partition_count - 1 do
        if stored_version(partition) ~= term then
            return nil
        end
    end
    local sum = { positions = {}, numbers = {}, people = 0, updated_at_ms = 0, closed = 0, annulled = 0 }
    for partition = 0, partition_count - 1 do
        local part = stored_part(partition)
        if not part then
            return nil
        end
        if #sum.numbers > 0 and #part[5] > 0 and #sum.numbers ~= #part[5] then
            return nil, "partitions with different numbers of categories"
        end
        sum.positions[partition + 1] = part[2]
        sum.people = sum.people + part[3]
        sum.closed = sum.closed + part.closed
        sum.annulled = sum.annulled + part.annulled
        sum.updated_at_ms = math.max(sum.updated_at_ms, part[4])
        add(sum.numbers, part, 1)
    end
    return sum
end

local sum, fault
if aggregate then
    local read, moved = pcall(moved_sum)
    sum = read and moved
end
if not sum then
    sum, fault = full_sum()
end
if fault then
    return redis.error_reply(fault)
end
if not sum then
    return outdated
end

local numbers, categories = sum.numbers, {}
for first = 1, #numbers, STRIDE do
    categories[#categories + 1] = '{"basis_points":' .. string.format("%.14g", numbers[first])
        .. ',"people_by_percent":[' .. table.concat(numbers, ",", first + 1, first + STRIDE - 1) .. "]}"
end

local people = string.format("%.14g", sum.people)
local json = '{"term":' .. ARGV[3]
    .. ',"generation":' .. ARGV[4]
    .. ',"log":' .. ARGV[5]
    .. ',"people":' .. people
    .. ',"updated_at_ms":' .. string.format("%.14g", sum.updated_at_ms)
    .. ',"positions":[' .. table.concat(sum.positions, ",")
    .. '],"closed_partitions":' .. string.format("%.14g", sum.closed)
    .. ',"annulled":' .. string.format("%.14g", sum.annulled)
    .. ',"categories":[' .. table.concat(categories, ",") .. "]}"
for index = 2, #KEYS, 2 do
    redis.call("SET", KEYS[index], json)
    redis.call("SET", KEYS[index + 1], people)
end
redis.call("PUBLISH", ARGV[1], ARGV[2])
return outdated
