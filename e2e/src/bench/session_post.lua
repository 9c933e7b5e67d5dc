-- One submission a request, each in the next session of the file `tokens`, and from an address of its own.
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  headers = {}
  for token in io.lines(tokens) do
    local address = string.format("10.0.%d.%d", math.floor(#headers / 250), #headers % 250 + 1)
    headers[#headers + 1] = {
      ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token, ["X-Forwarded-For"] = address}
  end
  count = number * math.floor(#headers / 2)
end

function request()
  count = count + 1
  local health = count % 9000
  local body = string.format(
    '{"allocation": {"health": %d.%02d, "education": %d.%02d, "defence": 10}}',
    math.floor(health / 100), health % 100, math.floor((9000 - health) / 100), (9000 - health) % 100)
  return wrk.format("POST", wrk.path, headers[count % #headers + 1], body)
end
