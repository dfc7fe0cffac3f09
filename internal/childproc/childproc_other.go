//go:build !linux

package childproc

import "syscall"

// hasDeathSignal tells that the kernel signals a child whose parent ended.
const hasDeathSignal = false

// descriptors lists what this process has open.
const descriptors = "/dev/fd"

func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}
