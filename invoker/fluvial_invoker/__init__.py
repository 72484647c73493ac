"""The invoker: creates, watches and ends instances; never on the hot path of an invocation."""
