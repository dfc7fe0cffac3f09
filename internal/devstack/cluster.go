package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"truegreen/internal/childproc"
)

// superuser is the role that owns the cluster and its databases.
const superuser = "truegreen"

// cluster is the Postgres data on disk, found or made.
type cluster struct {
	binaries binaries
	dataDir  string
	home     string
	password string
	who      *account
}

// existingMajor returns the version of the cluster in dataDir, or 0 when there
// is none.
func existingMajor(dataDir string) (int, error) {
	if _, err := os.Stat(dataDir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	text, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if err != nil {
		return 0, fmt.Errorf("read version of cluster %s: %w: it is no usable Postgres cluster; "+
			"start over with --fresh, or choose another folder with --data-dir", dataDir, err)
	}
	version := strings.TrimSpace(string(text))
	major, err := parseMajor(version)
	if err != nil || major < oldestMajor {
		return 0, fmt.Errorf("cluster %s was made by PostgreSQL %q, and %d or newer is needed: "+
			"start over with --fresh, or choose another folder with --data-dir", dataDir, version, oldestMajor)
	}
	return major, nil
}

// create makes the cluster, so that its folder appears whole or not at all.
func (c *cluster) create(ctx context.Context, durable bool) error {
	fresh := filepath.Join(c.home, newDataFolder)
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove unfinished cluster %s: %w", fresh, err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return unusableFolder(c.home, err)
	}
	if err := c.who.give(fresh); err != nil {
		return err
	}

	password, err := c.lendPassword()
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(password) }()

	arguments := []string{
		"--auth=scram-sha-256",
		"--encoding=UTF8",
		"--locale=C",
		"--no-instructions",
		"--pgdata=" + fresh,
		"--pwfile=" + password,
		"--username=" + superuser,
	}
	if !durable {
		arguments = append(arguments, "--no-sync")
	}
	command := childproc.Command(ctx, c.binaries.path("initdb"), arguments...)
	command.Dir = c.home
	command.Env = childEnvironment()
	output, err := runToEnd(ctx, command, c.who)
	if err != nil {
		return fmt.Errorf("make cluster %s with %s: %w; %s", c.dataDir, command.Path, err, lastWords(output))
	}
	if err := os.Rename(fresh, c.dataDir); err != nil {
		return fmt.Errorf("put cluster %s in place: %w", c.dataDir, err)
	}
	return nil
}

// lendPassword writes the password to a file that the account can read, and
// returns its path.
func (c *cluster) lendPassword() (string, error) {
	path := filepath.Join(c.home, passwordFile+".lent")
	if err := os.WriteFile(path, []byte(c.password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write password for initdb: %w", err)
	}
	return path, c.who.give(path)
}

// ensurePassword reads the password of the cluster. Where there is none it
// makes one, and sets it in a cluster that exists already.
func (c *cluster) ensurePassword(ctx context.Context) error {
	path := filepath.Join(c.home, passwordFile)
	text, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(text)) != "" {
		c.password = strings.TrimSpace(string(text))
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read password of the database: %w", err)
	}

	c.password = rand.Text()
	if _, err := os.Stat(c.dataDir); err == nil {
		if err := c.resetPassword(ctx); err != nil {
			return err
		}
	}
	draft := path + ".new"
	if err := os.WriteFile(draft, []byte(c.password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write password of the database: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("write password of the database: %w", err)
	}
	return nil
}

// resetPassword sets the password without a server: a stand-alone backend asks
// for none.
func (c *cluster) resetPassword(ctx context.Context) error {
	command := childproc.Command(ctx, c.binaries.path("postgres"), "--single", "-D", c.dataDir, "postgres")
	command.Dir = c.home
	command.Env = childEnvironment()
	command.Stdin = strings.NewReader(fmt.Sprintf("ALTER ROLE %s PASSWORD '%s';\n", superuser, c.password))
	output, err := runToEnd(ctx, command, c.who)
	if err == nil && strings.Contains(output, "ERROR:") {
		err = errors.New("the backend refused")
	}
	if err != nil {
		return fmt.Errorf("set password of cluster %s: %w; %s", c.dataDir, err, lastWords(output))
	}
	return nil
}
