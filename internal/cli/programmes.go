package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// ProgrammeActions are the actions of the command programmes.
type ProgrammeActions interface {
	// ProgrammeApply makes a version of each programme of the source that differs
	// from its newest version, all of them or none. It returns one version per
	// programme, in the order of the source: the one it made, or the newest,
	// marked Unchanged.
	ProgrammeApply(ctx context.Context, source ProgrammeSource) ([]ProgrammeVersion, error)

	// ProgrammeApprove lets a version be used. Whoever made it may not.
	ProgrammeApprove(ctx context.Context, approval ProgrammeApproval) (ProgrammeVersion, error)

	// ProgrammeList lists all versions, by code, the newest first.
	ProgrammeList(ctx context.Context) ([]ProgrammeVersion, error)
}

// ProgrammeSource is one file of programmes, as it is.
type ProgrammeSource struct {
	As   string // who wants it; never empty
	Data io.Reader
	Name string // the file's name as it was given, or "standard input"
}

// ProgrammeApproval approves one version.
type ProgrammeApproval struct {
	As      string // who approves; never empty
	Code    string // never empty
	Version int    // above 0
}

// The statuses of a [ProgrammeVersion].
const (
	ProgrammeWaits    = "waits for approval"
	ProgrammeApproved = "approved" // its time has not come, or is over
	ProgrammeInForce  = "in force"
)

// ProgrammeVersion is one version of one programme.
type ProgrammeVersion struct {
	ApprovedAt    *time.Time `json:"approved_at"` // nil while it waits
	ApprovedBy    string     `json:"approved_by"` // empty while it waits
	Code          string     `json:"code"`
	CreatedAt     time.Time  `json:"created_at"`
	CreatedBy     string     `json:"created_by"`
	Currency      string     `json:"currency"`
	EffectiveFrom string     `json:"effective_from"` // a day of TimeZone, such as 2026-10-01
	Hash          string     `json:"hash"`           // of its rules
	Kind          string     `json:"kind"`           // rebate, cashback, lossback
	Period        string     `json:"period"`         // daily, weekly, monthly
	Status        string     `json:"status"`         // one of the constants above
	TimeZone      string     `json:"time_zone"`      // such as Asia/Seoul
	Unchanged     bool       `json:"unchanged"`      // apply: it was the newest before
	Version       int        `json:"version"`        // counts from 1
}

func (p *program) programmesCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "programmes COMMAND",
		Short: "Looks after the programmes that settlements follow",
	}, p.programmesApplyCommand(), p.programmesListCommand(), p.programmesApproveCommand())
}

func (p *program) programmesApplyCommand() *cobra.Command {
	var asJSON bool
	var as string
	command := &cobra.Command{
		Use:   "apply FILE [flags]",
		Short: "Makes new versions of programmes from a file of YAML",
		Long: `Makes a new version of every programme in the file, which is YAML, whose rules
differ from those of its newest version; all of them or, if one is wrong, none.
- is standard input. May be repeated.

A version is used after somebody else has approved it.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("apply takes one FILE, or - for standard input, got %d", len(args))
			}
			return nil
		},
	}
	p.asFlag(command, &as)
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		if err := checkAs(&as); err != nil {
			return err
		}
		versions, err := p.applyProgrammes(ctx, args[0], as)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(map[string]any{"programmes": append([]ProgrammeVersion{}, versions...)})
		}
		var text strings.Builder
		for _, version := range versions {
			text.WriteString(version.applied())
		}
		if len(versions) == 0 {
			text.WriteString("no programmes\n")
		}
		return p.printf("%s", text.String())
	})
}

func (p *program) applyProgrammes(ctx context.Context, name, as string) ([]ProgrammeVersion, error) {
	data := p.Streams.In
	if name != stdinName {
		if err := checkFile(name); err != nil {
			return nil, err
		}
		opened, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("apply programmes: %w", err)
		}
		defer func() { _ = opened.Close() }() // only read
		data = opened
	}
	return p.Actions.ProgrammeApply(ctx, ProgrammeSource{As: as, Data: data, Name: title(name)})
}

// applied says what apply did, and what there is to do next.
func (version ProgrammeVersion) applied() string {
	what := fmt.Sprintf("created version %d", version.Version)
	if version.Unchanged {
		what = fmt.Sprintf("unchanged (version %d)", version.Version)
	}
	text := fmt.Sprintf("%s: %s, %s\n", version.Code, what, version.Status)
	if version.Status == ProgrammeWaits {
		text += nextStepOfAnother("programmes approve %s %d", version.Code, version.Version)
	}
	return text
}

func (p *program) programmesListCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "list [flags]",
		Short: "Lists the programmes and all their versions",
		Args:  noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		versions, err := p.Actions.ProgrammeList(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(map[string]any{"programmes": append([]ProgrammeVersion{}, versions...)})
		}
		rows := [][]string{{"PROGRAMME", "VERSION", "STATUS", "KIND", "CURRENCY", "PERIOD", "TIME ZONE", "EFFECTIVE FROM", "CREATED BY", "APPROVED BY"}}
		for _, version := range versions {
			rows = append(rows, []string{
				version.Code, strconv.Itoa(version.Version), version.Status, version.Kind, version.Currency, version.Period, version.TimeZone,
				version.EffectiveFrom, oneLine(version.CreatedBy), orDash(oneLine(version.ApprovedBy)),
			})
		}
		return p.printf("%s", orNone(rows, "no programmes\n"))
	})
}

func (p *program) programmesApproveCommand() *cobra.Command {
	var asJSON bool
	var approval ProgrammeApproval
	command := &cobra.Command{
		Use:   "approve CODE VERSION [flags]",
		Short: "Lets a version of a programme be used",
		Long: `Lets a version of a programme be used, for the periods that start on or after its
effective_from. Whoever made the version cannot approve it.`,
		Args: namedArgs("CODE", "VERSION"),
	}
	p.asFlag(command, &approval.As)
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, args []string) error {
		if err := checkAs(&approval.As); err != nil {
			return err
		}
		number, err := parseNumber("VERSION", args[1], math.MaxInt32)
		if err != nil {
			return err
		}
		approval.Code, approval.Version = args[0], int(number)
		version, err := p.Actions.ProgrammeApprove(ctx, approval)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(version)
		}
		return p.printf("approved %s version %d: %s, effective from %s (%s)\n",
			version.Code, version.Version, version.Status, version.EffectiveFrom, version.TimeZone)
	})
}
