package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// unfinished is the folder that who holds the lock writes in, and removes.
const unfinished = "unfinished"

// Prepare lays out, in a folder of dir named after what it holds, the toolchain
// made from the programs of this machine, or returns the one that is there
// already. Of several at once, in any number of processes, one writes and the
// others wait for it. A toolchain never changes once it has its name, and stays
// while anybody uses it.
func Prepare(ctx context.Context, dir string) (*Toolchain, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the folder of toolchains: %w", err)
	}
	made, err := planOf(ctx)
	if err != nil {
		return nil, err
	}
	return made.prepare(ctx, dir, nil)
}

func (p *plan) prepare(ctx context.Context, dir string, check func(root string) error) (*Toolchain, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create the folder of toolchains: %w", err)
	}
	made, err := p.take(ctx, dir, func(root string) error {
		_, err := os.Stat(root)
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		return made, err
	}
	// The lock is not held for as long as a registry takes: others want what is there.
	if err := p.layout.fetch(ctx); err != nil {
		return nil, fmt.Errorf("cannot fetch the toolchain: %w", err)
	}
	return p.take(ctx, dir, func(root string) error {
		return p.layout.settle(ctx, filepath.Join(dir, unfinished), root, check)
	})
}

// take marks the root as used once there has seen to it, all with the folder's lock.
func (p *plan) take(ctx context.Context, dir string, there func(root string) error) (*Toolchain, error) {
	lock := flock.New(filepath.Join(dir, "lock"))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return nil, fmt.Errorf("cannot lock the folder of toolchains: %w", err)
	}
	defer lock.Close()
	name := p.layout.digest()
	root := filepath.Join(dir, name)
	if err := there(root); err != nil {
		return nil, fmt.Errorf("cannot lay out the toolchain: %w", err)
	}
	use, err := hold(dir, name)
	if err != nil {
		return nil, fmt.Errorf("cannot mark the toolchain as used: %w", err)
	}
	_ = sweep(dir) // what cannot be removed is no reason to build nothing; the next one tries again
	return &Toolchain{Root: root, Node: p.node, NPM: p.npm, use: use}, nil
}

// settle makes root unless it is there, and then has it checked before it gets its
// name. What a process that died has left in the temporary folder goes first.
func (l *layout) settle(ctx context.Context, temporary, root string, check func(root string) error) error {
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := l.write(ctx, temporary)
	if err == nil && check != nil {
		err = check(temporary)
	}
	if err == nil {
		err = syncAll(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, root)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temporary))
	}
	return nil
}

// syncAll brings the folder's file system to the disk: the name must not
// survive a power cut that the content does not.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
