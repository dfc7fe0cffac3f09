package childproc

import "syscall"

// hasDeathSignal tells that the kernel signals a child whose parent ended.
const hasDeathSignal = true

// descriptors lists what this process has open.
const descriptors = "/proc/self/fd"

func setDeathSignal(attributes *syscall.SysProcAttr, signal syscall.Signal) {
	attributes.Pdeathsig = signal
}
