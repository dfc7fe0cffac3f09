package cli

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"truegreen/migrations"
)

func (p *program) versionCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "version [flags]",
		Short: "Prints the version of this binary",
		Args:  noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, nil, func(context.Context, []string) error {
		newest, err := migrations.Latest()
		if err != nil {
			return err
		}
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if asJSON {
			return p.printJSON(map[string]any{
				"go": runtime.Version(), "newest_migration": newest, "platform": platform, "version": p.Version,
			})
		}
		return p.printf("truegreen %s (schema %d, %s, %s)\n", p.Version, newest, runtime.Version(), platform)
	})
}
