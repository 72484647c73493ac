from ptrace.func_call import FunctionCallOptions

class PtraceSyscall:
    name: str
    result: int | None

class SyscallState:
    def event(self, options: FunctionCallOptions) -> PtraceSyscall | None: ...

class PtraceProcess:
    syscall_state: SyscallState
    def syscall(self, signum: int = ...) -> None: ...

class ProcessEvent:
    process: PtraceProcess

class PtraceDebugger:
    def addProcess(self, pid: int, is_attached: bool) -> PtraceProcess: ...
    def waitSyscall(self, process: PtraceProcess | None = ...) -> ProcessEvent: ...
    def quit(self) -> None: ...
