package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// jsonFlag adds --json to command.
func jsonFlag(command *cobra.Command, wanted *bool) {
	command.Flags().BoolVar(wanted, "json", false, "print JSON")
}

// printJSON prints value as one indented document.
func (p *program) printJSON(value any) error {
	encoder := json.NewEncoder(p.Streams.Out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// printf prints to standard output.
func (p *program) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(p.Streams.Out, format, args...); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// table lays rows out in columns, the first row being the header.
func table(rows [][]string) string {
	var text strings.Builder
	writer := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		// Writing to a strings.Builder does not fail.
		_, _ = fmt.Fprintln(writer, strings.Join(row, "\t"))
	}
	_ = writer.Flush()

	lines := strings.Split(text.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// oneLine makes one line without any characters that would move a terminal's cursor:
// what failed elsewhere may have written the text. Nothing is cut off: a terminal
// wraps, and whoever reads may need the end.
func oneLine(text string) string {
	visible := strings.Map(func(character rune) rune {
		if unicode.IsControl(character) {
			return ' '
		}
		return character
	}, text)
	return strings.Join(strings.Fields(visible), " ")
}

// shorten is oneLine of at most limit characters, for a list of which JSON has the
// rest.
func shorten(text string, limit int) string {
	runes := []rune(oneLine(text))
	if len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return string(runes)
}

// age is a duration in the two largest units that matter: 850ms, 12s, 3m4s,
// 5h2m, 3d4h.
func age(duration time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case duration < 0:
		return "-" + age(-duration)
	case duration < time.Second:
		return duration.Round(time.Millisecond).String()
	case duration < time.Minute:
		return fmt.Sprintf("%ds", duration/time.Second)
	case duration < time.Hour:
		return units(duration, time.Minute, "m", time.Second, "s")
	case duration < day:
		return units(duration, time.Hour, "h", time.Minute, "m")
	default:
		return units(duration, day, "d", time.Hour, "h")
	}
}

func units(duration, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d%s", duration/large, largeName)
	if rest := duration % large / small; rest > 0 {
		text += fmt.Sprintf("%d%s", rest, smallName)
	}
	return text
}

// ageOr is age, or absent when there is none.
func ageOr(duration *time.Duration, absent, suffix string) string {
	if duration == nil {
		return absent
	}
	return age(*duration) + suffix
}

// orDash is text, or a dash for none, so that no column looks forgotten.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// nextStep is a line with a command that makes sense next; format is what comes
// after the program's name.
func nextStep(format string, args ...any) string {
	return fmt.Sprintf("  next: truegreen "+format+"\n", args...)
}

// nextStepOfAnother is a nextStep for somebody other than who did the step before.
func nextStepOfAnother(format string, args ...any) string {
	return fmt.Sprintf("  next, by somebody else: truegreen "+format+"\n", args...)
}
