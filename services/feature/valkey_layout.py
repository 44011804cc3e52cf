"""How a scenario lies in Valkey: names of keys, and the scripts that change what must change together.

    <prefix>:user:{<scenario>:<user_id>}     hash: attributes, activity (MessagePack), offset of its last event
    <prefix>:items:{<scenario>}              hash: item_id → item (MessagePack)
    <prefix>:item_changes:{<scenario>}       sorted set: item_id by the offset of its last change
    <prefix>:item_offset:{<scenario>}        newest of these offsets
    <prefix>:key_id:{<scenario>}             under which key users' ids are pseudonyms
    <prefix>:checkpoint:{<scenario>}         hash: log_offset, last_event_time_ms

What stands in braces chooses a key's slot in a cluster: each user is whole in one slot, so users spread over all nodes;
a scenario's catalogue is whole in one, so that a batch of items is written whole and read in one command.
"""


class Keys:
    """The names of one scenario's keys."""

    def __init__(self, prefix: str, scenario: str) -> None:
        self._users = f"{prefix}:user:{{{scenario}:"
        self._marks = f"{prefix}:mark"
        self.items = f"{prefix}:items:{{{scenario}}}"
        self.item_changes = f"{prefix}:item_changes:{{{scenario}}}"
        self.item_offset = f"{prefix}:item_offset:{{{scenario}}}"
        self.key_id = f"{prefix}:key_id:{{{scenario}}}"
        self.checkpoint = f"{prefix}:checkpoint:{{{scenario}}}"

    def user(self, user_id: str) -> str:
        """One user's key. A brace in the id may shorten what chooses the slot, never make two users one."""
        return f"{self._users}{user_id}}}"

    @property
    def users_pattern(self) -> str:
        """Matches the keys of all users."""
        return f"{self._users}*"

    def user_of(self, key: bytes) -> str:
        """The id in a user's key."""
        return key.decode()[len(self._users) : -1]

    def mark(self, tag: str) -> str:
        """A key that is written only to learn when all before it is on disk; `tag` chooses its slot."""
        return f"{self._marks}:{{{tag}}}"


# A time to live of 0 means for ever.
_SET_TTL = """
local function set_ttl(ttl_ms)
  if ttl_ms == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ttl_ms) end
end
"""

APPLY_EVENTS = f"""#!lua
{_SET_TTL}
if (redis.call('HGET', KEYS[1], 'offset') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'offset', ARGV[2], 'activity', ARGV[3])
set_ttl(ARGV[4])
return 1
"""
"""KEYS: user. ARGV: the offset that the new activity was made from ('' for none), its offset, it, time to live in ms.
Returns 0 where another process was there first."""

PUT_ATTRIBUTES = f"""#!lua
{_SET_TTL}
redis.call('HSET', KEYS[1], 'attributes', ARGV[1])
set_ttl(ARGV[2])
"""
"""KEYS: user. ARGV: attributes, time to live in ms."""

DELETE_USER = """#!lua flags=allow-oom
local count = redis.call('HEXISTS', KEYS[1], 'attributes') + redis.call('HEXISTS', KEYS[1], 'activity')
redis.call('DEL', KEYS[1])
return count
"""
"""KEYS: user. Returns how many records there were."""

ERASE_USER = """#!lua flags=allow-oom
if tonumber(redis.call('HGET', KEYS[1], 'offset') or '0') < tonumber(ARGV[1]) then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
"""KEYS: user. ARGV: offset of the erasure. Leaves a user who came back, whom another process erased before that."""

MOVE_CHECKPOINT = """#!lua
if tonumber(redis.call('HGET', KEYS[1], 'log_offset') or '0') < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'log_offset', ARGV[1], 'last_event_time_ms', ARGV[2])
end
"""
"""KEYS: checkpoint. ARGV: log_offset, last_event_time_ms. Never moves back."""

MARK = """#!lua flags=allow-oom
redis.call('SET', KEYS[1], '1')
"""
"""KEYS: mark. Erasing must become durable on a full server too."""

PUT_ITEMS = """#!lua
local offset = tonumber(redis.call('GET', KEYS[3]) or '0')
local before = offset
for place = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[place]) ~= ARGV[place + 1] then
    offset = offset + 1
    redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1])
    redis.call('ZADD', KEYS[2], offset, ARGV[place])
  end
end
if offset > before then redis.call('SET', KEYS[3], string.format('%d', offset)) end
return {offset - before, offset}
"""
"""KEYS: items, item_changes, item_offset. ARGV: item_id, item and so on. Returns how many changed, and the newest
offset."""

READ_ITEM_CHANGES = """#!lua flags=no-writes
local found = redis.call('ZRANGE', KEYS[2], '(' .. ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
local answer = {tonumber(redis.call('GET', KEYS[3]) or '0')}
local size = 0
for place = 1, #found, 2 do
  if size >= tonumber(ARGV[3]) then break end
  local item = redis.call('HGET', KEYS[1], found[place])
  size = size + #item
  answer[#answer + 1] = tonumber(found[place + 1])
  answer[#answer + 1] = item
end
return answer
"""
"""KEYS: items, item_changes, item_offset. ARGV: after which offset, most changes, about how many bytes. Returns the
newest offset, then offset and item of each change."""
