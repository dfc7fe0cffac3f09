package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

const (
	// barInterval bounds how often the bar is drawn.
	barInterval = 100 * time.Millisecond
	// plainStep is after how many bytes a line is printed where there is no
	// terminal: few lines in a log, but some.
	plainStep = int64(25 << 20)
	// sizeUnknown is the size of a stream.
	sizeUnknown = int64(-1)
)

// progress shows how much of a file was read: it is written what was read. After
// end it shows nothing more, whoever still reads.
type progress struct {
	display display
	ended   bool
	mu      sync.Mutex
}

// display shows a number of further bytes, and in the end removes what must not
// stay.
type display interface {
	add(numBytes int64)
	remove()
}

// newProgress shows a bar if out is a terminal, and plain lines now and then if
// it is not. size is in bytes, or sizeUnknown.
func newProgress(out io.Writer, name string, size int64) *progress {
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &progress{display: barDisplay{progressbar.NewOptions64(size,
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetDescription(name),
			progressbar.OptionSetWriter(out),
			progressbar.OptionShowBytes(true),
			progressbar.OptionThrottle(barInterval),
		)}}
	}
	return &progress{display: &plainDisplay{name: name, out: out, size: size}}
}

// Write counts what was read, and never fails.
func (p *progress) Write(read []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.display.add(int64(len(read)))
	}
	return len(read), nil
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.display.remove()
}

// barDisplay is a bar. One that cannot be drawn is no reason to stop.
type barDisplay struct{ bar *progressbar.ProgressBar }

func (d barDisplay) add(numBytes int64) { _ = d.bar.Add64(numBytes) }
func (d barDisplay) remove()            { _ = d.bar.Clear(); _ = d.bar.Exit() }

// plainDisplay prints lines. One that cannot be printed is no reason to stop.
type plainDisplay struct {
	name    string
	numRead int64
	out     io.Writer
	size    int64
}

func (d *plainDisplay) add(numBytes int64) {
	before := d.numRead
	d.numRead += numBytes
	if before/plainStep == d.numRead/plainStep {
		return
	}
	whole := ""
	if d.size != sizeUnknown {
		whole = fmt.Sprintf(" of %d", d.size>>20)
	}
	_, _ = fmt.Fprintf(d.out, "%s: read %d%s MiB\n", d.name, d.numRead>>20, whole)
}

func (d *plainDisplay) remove() {}
