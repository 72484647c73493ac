"""The store on the Redis protocol: Redis ≥ 7.0, Valkey, or an embedded Valkey."""
