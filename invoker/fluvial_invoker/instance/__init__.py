"""What runs inside an instance, and inside the zygote that instances are forked from.

Nothing here imports the invoker's own modules: an instance sees this package, `fluvial` and the
few packages of `fluvial.runtime_path`, beside its bundle and its layer.
"""
