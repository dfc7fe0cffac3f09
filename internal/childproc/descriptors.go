package childproc

import (
	"os"
	"strconv"
	"sync"
	"syscall"
)

// keepDescriptors marks what this process inherited, apart from the standard
// streams, so that its children do not inherit it too. What Go opens is marked
// from the start.
var keepDescriptors = sync.OnceFunc(func() {
	entries, err := os.ReadDir(descriptors)
	if err != nil {
		return // an unusual system: children get what they got without this
	}
	for _, entry := range entries {
		if descriptor, err := strconv.Atoi(entry.Name()); err == nil && descriptor > 2 {
			syscall.CloseOnExec(descriptor)
		}
	}
})
