#!lua name=ccomet1

-- The channels of ccomet in Redis 7.0 or newer, or Valkey: what has to happen in one step.
--
-- A function answers an array, whose first element is its status: OK, ABSENT (there is no such
-- channel), KEY (an idempotency key was used for another message), or STALE (the caller has to say
-- hello again). Numbers in arguments are decimal text; numbers in answers are integers.
--
-- Keys, each with its letter here:
--   G  hash     run: run id of the Redis process, gen: generation, e: the greatest epoch so far
--   M  hash     a channel. e: epoch, g: generation, n: number of the next message, z: average
--               bytes of a message
--   S  stream   its messages. Message N has the id (N+1)-0, and the fields t: time in ms, k: token
--               of the publication, b: the message. Numbers have no holes, so XLEN tells the first.
--   K  string   an idempotency key of the channel: DIGEST:NUMBER:EPOCH
--   L  zset     the names of the channels, all with score 0
--
-- A process of Redis that starts with data of an earlier one may lack writes that the earlier one
-- acknowledged. So each process begins a new generation, in which each channel gets a new epoch
-- when it is first used: readers with a position of the old epoch learn of a gap.
--
-- Epochs are texts of 15 hex digits: 11 for milliseconds, 4 at random. They only grow. (As numbers
-- they would not fit into those of Lua.)
--
-- The names begin with the version of this interface: a change that its callers would notice needs
-- another number, for servers of both versions may use one Redis.

-- Returns the time in ms.
local function time()
    local parts = redis.call('TIME')
    return parts[1] * 1000 + math.floor(parts[2] / 1000)
end

-- Returns whether text `a` comes before `b`, by bytes. (The operator < compares by the locale.)
local function is_before(a, b)
    for i = 1, math.min(#a, #b) do
        local x, y = a:byte(i), b:byte(i)
        if x ~= y then return x < y end
    end
    return #a < #b
end

-- Returns whether the caller's generation is not that of G.
local function is_stale(g, gen)
    return redis.call('HGET', g, 'gen') ~= gen
end

-- Returns a new epoch, greater than all so far and than `old`, and notes it in G.
local function new_epoch(g, old, now, random)
    local greatest = redis.call('HGET', g, 'e') or ''
    if is_before(greatest, old) then greatest = old end
    local epoch = string.format('%011x', now) .. random
    if not is_before(greatest, epoch) then
        epoch = string.format('%011x', tonumber(greatest:sub(1, 11), 16) + 1) .. random
    end
    redis.call('HSET', g, 'e', epoch)
    return epoch
end

-- Returns the fields e, g, n and z of the channel at M; the first is false if there is none.
local function fields_of(m)
    return redis.call('HMGET', m, 'e', 'g', 'n', 'z')
end

-- Returns epoch, next number and average bytes of a channel with these fields; nil if there is none.
-- Renews the epoch if it is of another generation, with `random`, or else the random digits it has.
local function current(fields, g, m, gen, now, random)
    local epoch = fields[1]
    if not epoch then return nil end
    if fields[2] ~= gen then
        epoch = new_epoch(g, epoch, now, random or epoch:sub(12))
        redis.call('HSET', m, 'e', epoch, 'g', gen)
    end
    return epoch, tonumber(fields[3]), tonumber(fields[4])
end

-- Makes a channel without messages, and returns what `current` does.
local function make(keys, gen, name, now, random)
    local epoch = new_epoch(keys[1], '', now, random)
    redis.call('DEL', keys[3])
    redis.call('HSET', keys[2], 'e', epoch, 'g', gen, 'n', 0, 'z', 0)
    redis.call('ZADD', keys[4], 0, name)
    return epoch, 0, 0
end

-- Returns an entry of a stream as [number, time, token, message].
local function message(entry)
    local fields = entry[2]
    return { tonumber(entry[1]:sub(1, -3)) - 1, tonumber(fields[2]), fields[4], fields[6] }
end

-- Makes both keys of a channel expire.
local function expire(m, s, ttl_s)
    redis.call('EXPIRE', m, ttl_s)
    redis.call('EXPIRE', s, ttl_s)
end

-- G / run → OK gen now
local function hello(keys, args)
    local now = time()
    local fields = redis.call('HMGET', keys[1], 'run', 'gen')
    local gen = tonumber(fields[2] or 0)
    if gen == 0 or fields[1] ~= args[1] then
        gen = math.max(now, gen + 1)
        redis.call('HSET', keys[1], 'run', args[1], 'gen', gen)
    end
    return { 'OK', gen, now }
end

-- Returns messages from number `from` on, upwards or downwards (`step` is 1 or -1): at most `limit`,
-- and at most `bytes_max` bytes but at least one message. Reads the stream in pieces.
local function page(s, from, step, limit, bytes_max, average)
    local messages, bytes = {}, 0
    while #messages < limit do
        local likely = math.floor((bytes_max - bytes) / math.max(average, 1)) + 1
        local size = math.min(limit - #messages, 100, likely)
        local id = string.format('%d-0', from + 1)
        local entries
        if step > 0 then
            entries = redis.call('XRANGE', s, id, '+', 'COUNT', size)
        else
            entries = redis.call('XREVRANGE', s, id, '-', 'COUNT', size)
        end
        for _, entry in ipairs(entries) do
            local next = message(entry)
            bytes = bytes + #next[4]
            if bytes > bytes_max and #messages > 0 then return messages end
            messages[#messages + 1] = next
            from = next[1] + step
            if bytes >= bytes_max then return messages end
        end
        if #entries < size or from < 0 then break end
    end
    return messages
end

-- G M S L / gen name create(0|1) random count ttl_s bytes_max → OK epoch next first now messages
-- The newest messages, in ascending order: at most `count`, and at most `bytes_max` bytes but at
-- least one.
local function open(keys, args)
    local gen, name, random, count, ttl_s = args[1], args[2], args[4], tonumber(args[5]), args[6]
    local bytes_max = tonumber(args[7])
    local g, m, s = keys[1], keys[2], keys[3]
    if is_stale(g, gen) then return { 'STALE' } end
    local now = time()
    local epoch, next, average = current(fields_of(m), g, m, gen, now, random)
    if not epoch then
        if args[3] ~= '1' then return { 'ABSENT' } end
        epoch, next, average = make(keys, gen, name, now, random)
    end
    expire(m, s, ttl_s)
    local newest, messages = page(s, next - 1, -1, count, bytes_max, average), {}
    for i = #newest, 1, -1 do messages[#messages + 1] = newest[i] end
    return { 'OK', epoch, next, next - redis.call('XLEN', s), now, messages }
end

-- Returns, for each key from K on, the number of the message that it was used for in this epoch;
-- or nil if a key was used for another message, or is here for two.
local function numbers_of_keys(keys, args, epoch)
    local numbers, digests = {}, {}
    for i, value in ipairs(redis.call('MGET', unpack(keys, 5))) do
        local digest, number, of = (value or ''):match('^([^:]*):(%d+):(%x+)$')
        if of == epoch then numbers[i], digests[i] = tonumber(number), digest end
    end
    for i = 10, #args, 3 do
        local key, digest = tonumber(args[i + 1]), args[i + 2]
        if key > 0 then
            if (digests[key] or digest) ~= digest then return nil end
            digests[key] = digest
        end
    end
    return numbers
end

-- G M S L K... / gen name topic random token messages_max ttl_s key_ttl_s n (message, index of its
-- K or 0, digest)... → OK epoch first now [number...] [1 if it is new, else 0...]
-- The function that is called most: 9 commands for one message without a key. (A local name for
-- `redis.call`, and times and numbers as text, save a twentieth: Redis turns numbers into text as
-- if they were fractions.)
local function publish(keys, args)
    local call = redis.call
    local gen, topic, random, token, messages_max = args[1], args[3], args[4], args[5], args[6]
    local ttl_s, key_ttl_s = args[7], args[8]
    local g, m, s = keys[1], keys[2], keys[3]
    if is_stale(g, gen) then return { 'STALE' } end
    local now, fields, known = time(), fields_of(m), {}
    if keys[5] then
        -- Before anything changes. No key has been used yet in an epoch that is still to come.
        known = numbers_of_keys(keys, args, fields[2] == gen and fields[1])
        if not known then return { 'KEY' } end
    end
    local epoch, next, average = current(fields, g, m, gen, now, random)
    if not epoch then epoch, next, average = make(keys, gen, args[2], now, random) end
    local begin, numbers, is_new, blobs, head = next, {}, {}, {}, {}
    local now_text = string.format('%d', now)
    for i = 10, #args, 3 do
        local blob, key = args[i], tonumber(args[i + 1])
        local number = known[key]
        is_new[#is_new + 1] = number and 0 or 1
        if not number then
            number = next
            next = next + 1
            call('XADD', s, 'MAXLEN', '~', messages_max, string.format('%d-0', next),
                't', now_text, 'k', token, 'b', blob)
            if key > 0 then
                local value = string.format('%s:%d:%s', args[i + 2], number, epoch)
                call('SET', keys[4 + key], value, 'EX', key_ttl_s)
                known[key] = number
            end
            blobs[#blobs + 1], head[#head + 1] = blob, #blob
            average = number == 0 and #blob or math.floor((15 * average + #blob + 8) / 16)
        end
        numbers[#numbers + 1] = number
    end
    if next > begin then
        call('HSET', m, 'n', string.format('%d', next), 'z', string.format('%d', average))
        call('PUBLISH', topic, string.format('A %s %d %d %s %s %s\n', epoch, begin, next - begin,
            now_text, token, table.concat(head, ' ')) .. table.concat(blobs))
    end
    expire(m, s, ttl_s)
    return { 'OK', epoch, next - call('XLEN', s), now, numbers, is_new }
end

-- G M S / gen epoch random begin limit bytes_max backward(0|1)
-- → OK epoch next first now messages has_more(0|1)
-- Messages from `begin` on, in ascending order; backward, those below it, in descending order. None
-- if the channel has another epoch.
local function read(keys, args)
    local gen, random, begin = args[1], args[3], tonumber(args[4])
    local limit, bytes_max = tonumber(args[5]), tonumber(args[6])
    local g, m, s = keys[1], keys[2], keys[3]
    if is_stale(g, gen) then return { 'STALE' } end
    local now = time()
    local epoch, next, average = current(fields_of(m), g, m, gen, now, random)
    if not epoch then return { 'ABSENT' } end
    local first = next - redis.call('XLEN', s)
    local messages, has_more = {}, false
    if epoch == args[2] then
        local step = args[7] == '1' and -1 or 1
        local from = step > 0 and math.max(begin, first) or math.min(begin, next) - 1
        if first <= from and from < next then
            messages = page(s, from, step, limit, bytes_max, average)
            from = from + step * #messages
            has_more = first <= from and from < next
        end
    end
    return { 'OK', epoch, next, first, now, messages, has_more and 1 or 0 }
end

-- G M S / gen topic random token → OK epoch next
-- Removes the messages. Numbers go on.
local function clear(keys, args)
    local gen, topic, random, token = args[1], args[2], args[3], args[4]
    local g, m, s = keys[1], keys[2], keys[3]
    if is_stale(g, gen) then return { 'STALE' } end
    local epoch, next = current(fields_of(m), g, m, gen, time(), random)
    if not epoch then return { 'ABSENT' } end
    redis.call('DEL', s)
    redis.call('PUBLISH', topic, string.format('C %s %d %s\n', epoch, next, token))
    return { 'OK', epoch, next }
end

-- G M S L / gen name topic token → OK epoch next
-- Removes the channel. One that is made under its name later has a greater epoch.
local function remove(keys, args)
    local gen, name, topic, token = args[1], args[2], args[3], args[4]
    local g, m, s, l = keys[1], keys[2], keys[3], keys[4]
    if is_stale(g, gen) then return { 'STALE' } end
    local epoch, next = unpack(redis.call('HMGET', m, 'e', 'n'))
    if not epoch then return { 'ABSENT' } end
    redis.call('DEL', m, s)
    redis.call('ZREM', l, name)
    if is_before(redis.call('HGET', g, 'e') or '', epoch) then redis.call('HSET', g, 'e', epoch) end
    redis.call('PUBLISH', topic, string.format('R %s %d %s\n', epoch, next, token))
    return { 'OK', epoch, tonumber(next) }
end

-- G L / gen prefix_of_M prefix_of_S prefix after limit
-- → OK has_more(0|1) [[name, epoch, next, first, bytes]...]
-- At most `limit` channels whose names begin with `prefix` and come after `after`, in the order of
-- bytes. Takes names without a channel off the list. Looks at 10 names for each one that is wanted.
local function names(keys, args)
    local gen, prefix_of_m, prefix_of_s, prefix, after, limit =
        args[1], args[2], args[3], args[4], args[5], tonumber(args[6])
    local g, l = keys[1], keys[2]
    if is_stale(g, gen) then return { 'STALE' } end
    local now, found, visits = time(), {}, 10 * limit
    local from = is_before(after, prefix) and '[' .. prefix or '(' .. after
    while true do
        local size = math.min(visits, 100) + 1
        local some = redis.call('ZRANGEBYLEX', l, from, '+', 'LIMIT', 0, size)
        for _, name in ipairs(some) do
            if name:sub(1, #prefix) ~= prefix then return { 'OK', 0, found } end
            if #found == limit or visits == 0 then return { 'OK', 1, found } end
            visits = visits - 1
            local m = prefix_of_m .. name
            local epoch, next, average = current(fields_of(m), g, m, gen, now)
            if epoch then
                local length = redis.call('XLEN', prefix_of_s .. name)
                found[#found + 1] = { name, epoch, next, next - length, length * average }
            else
                redis.call('ZREM', l, name)
            end
        end
        if #some < size then return { 'OK', 0, found } end
        from = '(' .. some[#some]
    end
end

-- L / prefix_of_M after count → OK (last name that was looked at, '' at the end)
-- Takes names without a channel off the list, among the next `count`.
local function sweep(keys, args)
    local l, prefix_of_m, after, count = keys[1], args[1], args[2], tonumber(args[3])
    local some = redis.call('ZRANGEBYLEX', l, '(' .. after, '+', 'LIMIT', 0, count)
    for _, name in ipairs(some) do
        if redis.call('EXISTS', prefix_of_m .. name) == 0 then redis.call('ZREM', l, name) end
    end
    return { 'OK', #some < count and '' or some[#some] }
end

-- G M S M S ... / gen ttl_s → OK
-- Makes channels live on.
local function touch(keys, args)
    if is_stale(keys[1], args[1]) then return { 'STALE' } end
    for i = 2, #keys do redis.call('EXPIRE', keys[i], args[2]) end
    return { 'OK' }
end

-- A full Redis refuses what is published. All else goes on, so that readers get what there is.
local function register_for_full(name, callback)
    redis.register_function({ function_name = name, callback = callback, flags = { 'allow-oom' } })
end

redis.register_function('ccomet1_publish', publish)
register_for_full('ccomet1_hello', hello)
register_for_full('ccomet1_open', open)
register_for_full('ccomet1_read', read)
register_for_full('ccomet1_clear', clear)
register_for_full('ccomet1_remove', remove)
register_for_full('ccomet1_names', names)
register_for_full('ccomet1_sweep', sweep)
register_for_full('ccomet1_touch', touch)
