#!lua name=ccomet1

redis.register_function('ccomet1_hello', function(keys, args)
  return { 'OK' }
end)
