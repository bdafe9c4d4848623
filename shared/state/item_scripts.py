"""How items change in Redis: each script does all of a change or nothing, so that no two can interleave.

An item is never both live and retired. Each script takes ``ITEM_KEYS``. What can fail for a full Redis comes first.
"""

ITEMS, PICTURES, CHANGED = "mts4mm:items", "mts4mm:items:pictures", "mts4mm:items:changed"
ITEMS_BYTES, ITEMS_VERSION = "mts4mm:items:bytes", "mts4mm:items:version"
RETIRED, RETIRED_VERSION = "mts4mm:retired", "mts4mm:retired:version"
ITEM_KEYS = (ITEMS, PICTURES, CHANGED, ITEMS_BYTES, ITEMS_VERSION, RETIRED, RETIRED_VERSION)

CHANGES = "mts4mm:changes"
"""The channel on which any message says: look again."""
TOO_MANY_ITEMS, TOO_MANY_BYTES = -1, -2
"""What ``PUT`` answers where there is no room."""

# ARGV: the id, the item, its picture or nothing, the most items, the most bytes, a new version, the channel.
PUT = """
local id, item, picture = ARGV[1], ARGV[2], ARGV[3]
local before = redis.call('HSTRLEN', KEYS[1], id)
local grown = #item + #picture - before - redis.call('HSTRLEN', KEYS[2], id)
if before == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
if grown > 0 and tonumber(redis.call('GET', KEYS[4]) or '0') + grown > tonumber(ARGV[5]) then
  return -2
end
redis.call('HSET', KEYS[1], id, item)
if picture == '' then
  redis.call('HDEL', KEYS[2], id)
else
  redis.call('HSET', KEYS[2], id, picture)
end
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
redis.call('ZADD', KEYS[3], now, id)
redis.call('INCRBY', KEYS[4], grown)
redis.call('SET', KEYS[5], ARGV[6])
if redis.call('SREM', KEYS[6], id) == 1 then
  redis.call('SET', KEYS[7], ARGV[6])
end
redis.call('PUBLISH', ARGV[7], '')
return tonumber(now)
"""

# ARGV: of each item the id, when it was put, and the item.
# What encoders made may take a little more than the bytes that there are to be: it is bounded by the items.
NOTE = """
for i = 1, #ARGV, 3 do
  local id, item = ARGV[i], ARGV[i + 2]
  if tonumber(redis.call('ZSCORE', KEYS[3], id) or '-1') == tonumber(ARGV[i + 1]) then
    redis.call('INCRBY', KEYS[4], #item - redis.call('HSTRLEN', KEYS[1], id))
    redis.call('HSET', KEYS[1], id, item)
  end
end
"""

_DROP_ONE = """
local function drop(id)
  local freed = redis.call('HSTRLEN', KEYS[1], id) + redis.call('HSTRLEN', KEYS[2], id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('DECRBY', KEYS[4], freed)
end
"""

# ARGV: a new version, until when items were put that go, or nothing, and the ids.
DROP = f"""{_DROP_ONE}
local dropped = 0
for i = 3, #ARGV do
  local changed = redis.call('ZSCORE', KEYS[3], ARGV[i])
  if changed and (ARGV[2] == '' or tonumber(changed) <= tonumber(ARGV[2])) then
    drop(ARGV[i])
    dropped = dropped + 1
  end
end
if dropped > 0 then
  redis.call('SET', KEYS[5], ARGV[1])
end
return dropped
"""

# ARGV: a new version, the channel, and the ids.
RETIRE = f"""{_DROP_ONE}
local dropped = false
for i = 3, #ARGV do
  redis.call('SADD', KEYS[6], ARGV[i])
  if redis.call('ZSCORE', KEYS[3], ARGV[i]) then
    drop(ARGV[i])
    dropped = true
  end
end
redis.call('SET', KEYS[7], ARGV[1])
if dropped then
  redis.call('SET', KEYS[5], ARGV[1])
end
redis.call('PUBLISH', ARGV[2], '')
"""
