-- A thousand submissions a request. The bodies are made beforehand, so that making them is not what is measured.
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  bodies = {}
  for batch = 1, 24 do
    local items = {}
    for item = 1, 1000 do
      local health = (batch * 1000 + item) % 9000
      items[item] = string.format(
        '{"person": "p-%d-%d-%d", "allocation": {"health": %d.%02d, "education": %d.%02d, "defence": 10}}',
        number, batch, item, math.floor(health / 100), health % 100, math.floor((9000 - health) / 100), (9000 - health) % 100)
    end
    bodies[batch] = wrk.format("POST", wrk.path, {["Content-Type"] = "application/json"},
      "[" .. table.concat(items, ",") .. "]")
  end
  count = 0
end

function request()
  count = count + 1
  return bodies[count % #bodies + 1]
end
