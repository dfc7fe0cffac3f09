package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"truegreen/internal/cli"
	"truegreen/migrations"
)

// fakeActions answers what a test put into it, and keeps what it was asked.
type fakeActions struct {
	fakeOutbox
	fakeProgrammes
	fakeSettlements

	refused cli.ImportResult // what an import is to come to, if it has refused lines

	audit     cli.AuditReport
	calls     []string
	err       error
	health    cli.Health
	imported  []string
	late      io.Reader // what Import was given, if it left that unread
	names     []string
	readsLate bool // keeps Import from reading
	report    cli.StatusReport
	statuses  []migrations.Status
	streams   []cli.BrokerStream
}

func (fake *fakeActions) call(format string, args ...any) error {
	fake.calls = append(fake.calls, fmt.Sprintf(format, args...))
	return fake.err
}

func (fake *fakeActions) Audit(context.Context) (cli.AuditReport, error) {
	return fake.audit, fake.call("audit")
}

func (fake *fakeActions) BrokerProvision(context.Context) ([]cli.BrokerStream, error) {
	return fake.streams, fake.call("provision")
}

func (fake *fakeActions) Dev(_ context.Context, options cli.DevOptions) error {
	return fake.call("dev %+v", options)
}

func (fake *fakeActions) Healthcheck(_ context.Context, check string) (cli.Health, error) {
	return fake.health, fake.call("healthcheck %s", check)
}

// Import fails at a line that says "bad", as the real one does at a bad line.
func (fake *fakeActions) Import(_ context.Context, source cli.ImportSource) (cli.ImportResult, error) {
	if fake.readsLate {
		fake.late = source.Lines
		return cli.ImportResult{}, nil
	}
	var read bytes.Buffer
	// Both are wrapped, so that it is read piece by piece, as lines are.
	if _, err := io.Copy(struct{ io.Writer }{&read}, struct{ io.Reader }{source.Lines}); err != nil {
		return cli.ImportResult{}, err
	}
	content := read.Bytes()
	fake.imported = append(fake.imported, string(content))
	if strings.Contains(string(content), "bad") {
		return cli.ImportResult{}, fmt.Errorf("%s, line 2: no such type", source.Name)
	}
	if fake.refused.NumRefused > 0 {
		return fake.refused, nil
	}
	numLines := int64(bytes.Count(content, []byte("\n")))
	return cli.ImportResult{NumApplied: numLines, NumLines: numLines}, fake.call("import %s", source.Name)
}

func (fake *fakeActions) LoopPause(_ context.Context, change cli.LoopChange) error {
	return fake.call("pause %+v", change)
}

func (fake *fakeActions) LoopResume(_ context.Context, change cli.LoopChange) error {
	return fake.call("resume %+v", change)
}

func (fake *fakeActions) MigrateDown(context.Context) (string, error) {
	return strings.Join(fake.names, ""), fake.call("down")
}

func (fake *fakeActions) MigrateStatus(context.Context) ([]migrations.Status, error) {
	return fake.statuses, fake.call("migrate status")
}

func (fake *fakeActions) MigrateUp(context.Context) ([]string, error) {
	return fake.names, fake.call("up")
}

func (fake *fakeActions) Sample(_ context.Context, out io.Writer, options cli.SampleOptions) error {
	_, _ = io.WriteString(out, "{}\n")
	return fake.call("sample %+v", options)
}

func (fake *fakeActions) Status(context.Context) (cli.StatusReport, error) {
	return fake.report, fake.call("status")
}

func (fake *fakeActions) Worker(context.Context) error { return fake.call("worker") }

// testBundle is one command line with everything around it faked.
type testBundle struct {
	actions *fakeActions
	errOut  bytes.Buffer
	groups  []string // that the settings were read for
	in      strings.Reader
	out     bytes.Buffer
	readErr error
	user    string
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	return &testBundle{actions: &fakeActions{}, user: "ana"}
}

func (bundle *testBundle) options() cli.Options {
	return cli.Options{
		Actions: bundle.actions,
		Bind: func(flags *pflag.FlagSet, groups ...string) {
			for _, group := range groups {
				flags.String("of-"+group, "", "a setting of "+group)
			}
		},
		Read: func(_ *pflag.FlagSet, groups ...string) error {
			bundle.groups = groups
			return bundle.readErr
		},
		Streams: cli.Streams{Err: &bundle.errOut, In: &bundle.in, Out: &bundle.out},
		User:    bundle.user,
		Version: "v1.2.3",
	}
}

func (bundle *testBundle) run(t *testing.T, args ...string) int {
	t.Helper()
	return cli.Execute(t.Context(), bundle.options(), args)
}
