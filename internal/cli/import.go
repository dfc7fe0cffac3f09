package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// stdinName stands for standard input among the files.
const stdinName = "-"

// importedFile is what became of one file.
type importedFile struct {
	Name string `json:"file"`
	ImportResult
}

func (p *program) importCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "import FILE... [flags]",
		Short: "Applies activity from files of JSON Lines",
		Long: `Applies activity, one JSON object a line, from files in the order given; - is
standard input. What is packed with gzip is unpacked.

docs/guides/activity.md has the format.

Lines that were applied before change nothing, so a file may be imported again,
and is, after a bad line in it was fixed.`,
		Args: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				return errors.New("import needs a FILE, or - for standard input")
			}
			return nil
		},
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, names []string) error {
		if err := checkFiles(names); err != nil {
			return err
		}
		done := make([]importedFile, 0, len(names))
		var failed error
		for _, name := range names {
			result, err := p.importFile(ctx, name)
			if err != nil {
				failed = err
				break
			}
			result.Refused = append([]ImportRefused{}, result.Refused...)
			done = append(done, importedFile{Name: name, ImportResult: result})
			if !asJSON {
				err = p.printf("%s: %d lines: %d applied, %d unchanged, %d refused\n%s",
					title(name), result.NumLines, result.NumApplied, result.NumUnchanged, result.NumRefused, result.refusals())
			}
			if err != nil {
				return err
			}
		}
		if asJSON {
			return errors.Join(failed, p.printJSON(map[string]any{"files": done}))
		}
		return failed
	})
}

// refusals says which lines were refused, why, and where all of them are; nothing
// without any.
func (result ImportResult) refusals() string {
	if result.NumRefused == 0 {
		return ""
	}
	var text strings.Builder
	for _, line := range result.Refused {
		_, _ = fmt.Fprintf(&text, "  line %d: %s %s of player %s is refused: it needs %d, and the balance is %d (minor units)\n",
			line.Line, line.Type, oneLine(line.ID), oneLine(line.Player), line.Amount, line.Balance)
	}
	if more := result.NumRefused - int64(len(result.Refused)); more > 0 {
		_, _ = fmt.Fprintf(&text, "  and %d more\n", more)
	}
	text.WriteString("  refused lines are stored, move no money, and stay refused: " +
		"SELECT * FROM bet WHERE refusal IS NOT NULL; SELECT * FROM payment WHERE refusal IS NOT NULL\n")
	return text.String()
}

// checkFiles looks at all files before the first one is applied.
func checkFiles(names []string) error {
	var wrong []error
	seenStdin := false
	for _, name := range names {
		if name == stdinName {
			if seenStdin {
				wrong = append(wrong, WrongUsage(errors.New("- may be given once")))
			}
			seenStdin = true
			continue
		}
		if err := checkFile(name); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

func checkFile(name string) error {
	// Not opened: a named pipe would be used up.
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("look at file: %w", err)
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a folder, not a file", name)
	}
	return nil
}

func title(name string) string {
	if name == stdinName {
		return "standard input"
	}
	return name
}

func (p *program) importFile(ctx context.Context, name string) (ImportResult, error) {
	file := p.Streams.In
	size := sizeUnknown
	if name != stdinName {
		opened, err := os.Open(name)
		if err != nil {
			return ImportResult{}, fmt.Errorf("import: %w", err)
		}
		defer func() { _ = opened.Close() }() // only read
		if info, err := opened.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		file = opened
	}

	// It is read ahead, and may be read a little longer than Import takes.
	progress := newProgress(p.Streams.Err, title(name), size)
	defer progress.end()
	return p.Actions.Import(ctx, ImportSource{Lines: io.TeeReader(file, progress), Name: title(name)})
}
