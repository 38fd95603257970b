// Package previewd holds the nouns of previewd: projects, builds, versions,
// artifacts and events, the rules they obey, and the contracts that cross a
// process. It imports the standard library only. Read these files first.
package previewd
