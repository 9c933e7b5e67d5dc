-- One submission a request, each of a person of its own.
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  math.randomseed(number + 1)
  salt = math.random(1, 1000000000)
  count = 0
end

function request()
  count = count + 1
  local health = count % 9000
  local body = string.format(
    '{"person": "p-%d-%d-%d", "allocation": {"health": %d.%02d, "education": %d.%02d, "defence": 10}}',
    number, salt, count, math.floor(health / 100), health % 100, math.floor((9000 - health) / 100), (9000 - health) % 100)
  return wrk.format("POST", wrk.path, {["Content-Type"] = "application/json"}, body)
end
