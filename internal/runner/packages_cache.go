package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/telemetry"
)

// toolFolders are where build tools keep what they remember, by framework; "" has
// those of every one. What a framework writes anew each time is not there
// (.svelte-kit), nor what is right only beside its last output (Gatsby's .cache).
var toolFolders = map[string][]string{
	"":         {"node_modules/.cache", "node_modules/.vite"},
	"next":     {".next/cache"},
	"astro":    {".astro", "node_modules/.astro"},
	"angular":  {".angular/cache"},
	"parcel":   {".parcel-cache"},
	"eleventy": {".cache"},
}

// cacheAside is where caches in node_modules are copied before the box ends: what was
// written over kept packages goes with it.
const cacheAside = ".previewd-cache"

// toolFolders leaves out what the tree itself has: that is source, which nothing is
// laid over and which no cache holds.
func (p *packagesBuild) toolFolders() []string {
	return slices.DeleteFunc(slices.Concat(toolFolders[""], toolFolders[p.plan.Framework.Name]), func(folder string) bool {
		_, err := p.sourceRoot.Lstat(folder)
		return err == nil
	})
}

// tools names what a cache is of: another Node.js or framework may read it wrongly,
// and other folders may be source.
func (p *packagesBuild) tools() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "tools 2 %q %q %q", filepath.Base(p.with.Root), p.plan.Framework.Name, p.toolFolders()))
	return hex.EncodeToString(sum[:8])
}

// makeSite runs the build command, with what tools have kept of the project's last
// build. If that may be why it fails, it is run once more without.
func (p *packagesBuild) makeSite(ctx context.Context) error {
	laid := p.layCache(ctx)
	failure, err := p.command(ctx, p.plan.Build.Argv)
	if err == nil && failure != nil && laid {
		p.dropCache(ctx)
		if failure.Code == previewd.FailBuild {
			p.log.printf("%s: perhaps for what tools have kept of the last build, so once more without that", failure.Code)
			if failure, err = p.removeCache(ctx); err == nil && failure == nil {
				failure, err = p.command(ctx, p.plan.Build.Argv)
			}
		}
	}
	if err != nil || failure != nil {
		return errors.Join(err, asFailed(failure))
	}
	p.setCacheAside(ctx)
	return nil
}

// layCache lays out what is kept of the project. A build does without what cannot
// be laid out.
func (p *packagesBuild) layCache(ctx context.Context) bool {
	if p.with.Caches == nil || p.claim.ProjectID == "" {
		return false
	}
	kept, err := p.with.Caches.open(p.claim.ProjectID, p.tools())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.Log.WarnContext(ctx, "tools' cache is not used", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
		}
		return false
	}
	defer kept.Close()
	if err := p.box.Unpack(ctx, kept); err != nil && ctx.Err() == nil {
		p.log.printf("cache: what tools have kept cannot be laid out and is dropped")
		p.Log.WarnContext(ctx, "tools' cache is dropped", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
		p.dropCache(ctx)
		_, _ = p.removeCache(ctx) // what is left of it takes room, no more
		return false
	}
	size := int64(0)
	if info, err := kept.Stat(); err == nil {
		size = info.Size()
	}
	p.log.printf("cache: tools have what they kept of the project's last build, %.1f MB", float64(size)/1e6)
	return true
}

func (p *packagesBuild) dropCache(ctx context.Context) {
	if err := p.with.Caches.drop(p.claim.ProjectID); err != nil {
		p.Log.WarnContext(ctx, "tools' cache cannot be dropped", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
	}
}

func (p *packagesBuild) removeCache(ctx context.Context) (*previewd.Failure, error) {
	return p.command(ctx, append([]string{"rm", "-rf", "--"}, p.toolFolders()...))
}

// setCacheAside has what is to be kept be part of the workspace, and has it kept once
// the site is published. No build fails for it.
func (p *packagesBuild) setCacheAside(ctx context.Context) {
	if p.with.Caches == nil || p.claim.ProjectID == "" {
		return
	}
	if p.log.hidden != nil { // tools remember what they were given, and secrets stay in the box
		p.log.printf("cache: nothing is kept for the next build, since this one had secrets")
		return
	}
	folders := map[string]string{}
	var aside []string
	for _, folder := range p.toolFolders() {
		if rest, ok := strings.CutPrefix(folder, "node_modules/"); ok {
			folders[cacheAside+"/"+rest] = folder
			aside = append(aside, folder)
		} else {
			folders[folder] = folder
		}
	}
	script := `for f; do if [ -d "$f" ]; then mkdir -p ` + cacheAside + ` && cp -RP -- "$f" ` + cacheAside + `/; fi; done`
	end, err := p.box.Run(ctx, sandbox.Task{Argv: append([]string{"sh", "-c", script, "sh"}, aside...), Env: p.env(), Output: io.Discard})
	if err != nil || end.Code != 0 {
		for _, folder := range aside {
			delete(folders, cacheAside+"/"+path.Base(folder)) // half of it is worse than nothing
		}
	}
	p.remember = func(ctx context.Context) { p.saveCache(ctx, folders) }
}

// saveCache keeps what tools remember for the project's next build. Nothing is alive
// in the box any more.
func (p *packagesBuild) saveCache(ctx context.Context, folders map[string]string) {
	workspace, err := p.box.Files(ctx)
	if err != nil {
		p.Log.WarnContext(ctx, "tools' cache is not kept", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
		return
	}
	defer workspace.Close()
	size, err := p.with.Caches.save(ctx, p.claim.ProjectID, p.tools(), workspace.FS(), folders)
	switch {
	case errors.Is(err, errCacheTooLarge):
		p.log.printf("cache: what tools would keep is more than %d MB or %d files, and is not kept", p.with.Caches.maxProject>>20, maxCacheFiles)
	case err != nil:
		p.Log.WarnContext(ctx, "tools' cache is not kept", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
	case size > 0:
		p.log.printf("cache: kept %.1f MB for the project's next build", float64(size)/1e6)
	}
}
