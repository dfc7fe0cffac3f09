package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) migrateCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "migrate COMMAND",
		Short: "Brings the database's schema up or down",
	}, p.migrateUpCommand(), p.migrateDownCommand(), p.migrateStatusCommand())
}

func (p *program) migrateUpCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "up [flags]",
		Short: "Applies every migration that the database lacks",
		Args:  noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		applied, err := p.Actions.MigrateUp(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(map[string]any{"applied": append([]string{}, applied...)})
		}
		for _, name := range applied {
			if err := p.printf("applied %s\n", name); err != nil {
				return err
			}
		}
		if len(applied) == 0 {
			return p.printf("nothing to apply\n")
		}
		return nil
	})
}

func (p *program) migrateDownCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "down [flags]",
		Short: "Undoes the newest migration, data included",
		Args:  noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		undone, err := p.Actions.MigrateDown(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			names := []string{}
			if undone != "" {
				names = append(names, undone)
			}
			return p.printJSON(map[string]any{"undone": names})
		}
		if undone == "" {
			return p.printf("nothing to undo\n")
		}
		return p.printf("undid %s\n", undone)
	})
}

func (p *program) migrateStatusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status [flags]",
		Short: "Lists the migrations and which of them the database has",
		Args:  noArgs,
	}
	jsonFlag(command, &asJSON)
	return p.leaf(command, []string{groupDatabase}, func(ctx context.Context, _ []string) error {
		list, err := p.Actions.MigrateStatus(ctx)
		if err != nil {
			return err
		}
		type migration struct {
			Applied bool   `json:"applied"`
			Name    string `json:"name"`
			Version int64  `json:"version"`
		}
		found := make([]migration, 0, len(list))
		rows := [][]string{{"MIGRATION", "STATE"}}
		for _, status := range list {
			state := "missing"
			if status.Applied {
				state = "applied"
			}
			found = append(found, migration(status))
			rows = append(rows, []string{status.Name, state})
		}
		if asJSON {
			return p.printJSON(map[string]any{"migrations": found})
		}
		return p.printf("%s", table(rows))
	})
}
