package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"truegreen/internal/childproc"
)

// account is the user that Postgres runs as. Postgres refuses to run as root,
// so root lends it another user. nil stands for the user of this process.
type account struct {
	gid  uint32
	name string
	uid  uint32
}

// chooseAccount returns nil for everybody but root.
func chooseAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := parseID(found.Uid)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := parseID(found.Gid)
		if err != nil {
			continue
		}
		return &account{gid: gid, name: name, uid: uid}, nil
	}
	return nil, errors.New("Postgres does not run as root, and this machine has neither a user " +
		"postgres nor a user nobody: add one, run as another user, or name a server with --database-url")
}

// parseID also takes the negative ids of macOS.
func parseID(text string) (uint32, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read user id %q: %w", text, err)
	}
	return uint32(id), nil
}

// ownerOf returns the account that owns an existing cluster: the one that must
// run it. Only root can run a cluster that belongs to somebody else.
func ownerOf(dataDir string, chosen *account) (*account, error) {
	info, err := os.Stat(dataDir)
	if err != nil {
		return nil, fmt.Errorf("look at cluster %s: %w", dataDir, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return chosen, nil
	}
	if chosen == nil {
		if owner.Uid != uint32(os.Geteuid()) {
			return nil, fmt.Errorf("cluster %s belongs to the user with id %d: run as that user, "+
				"or choose another folder with --data-dir", dataDir, owner.Uid)
		}
		return nil, nil
	}
	if owner.Uid == chosen.uid {
		return chosen, nil
	}
	if owner.Uid == 0 {
		return nil, fmt.Errorf("cluster %s belongs to root, and Postgres does not run as root: "+
			"give it to the user %s, or choose another folder with --data-dir", dataDir, chosen.name)
	}
	return &account{gid: owner.Gid, name: strconv.Itoa(int(owner.Uid)), uid: owner.Uid}, nil
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Gid: a.gid, Uid: a.uid}
}

// give makes the account the owner of path.
func (a *account) give(path string) error {
	if a == nil {
		return nil
	}
	if err := os.Lchown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, a.name, err)
	}
	return nil
}

// canEnter tells whether the account can reach dir: each of its parents must
// let it pass, which only trying can tell.
func (a *account) canEnter(ctx context.Context, dir string) (bool, error) {
	if a == nil {
		return true, nil
	}
	program, err := exec.LookPath("true")
	if err != nil {
		return false, fmt.Errorf("try user %s: %w", a.name, err)
	}
	if err := a.try(ctx, program, "/"); err != nil {
		return false, fmt.Errorf("run a program as user %s: %w: "+
			"run as a user that is not root, or name a server with --database-url", a.name, err)
	}
	err = a.try(ctx, program, dir)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("enter %s as user %s: %w", dir, a.name, err)
	}
	return true, nil
}

func (a *account) try(ctx context.Context, program, dir string) error {
	command := childproc.Command(ctx, program)
	command.Dir = dir
	command.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	if err := command.Run(); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}
