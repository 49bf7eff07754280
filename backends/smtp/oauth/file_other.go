//go:build !unix

package oauth

import (
	"context"
	"io/fs"
	"os"
)

// keepOwner does nothing: a file belongs to who has made it.
func keepOwner(*os.File, fs.FileInfo) {}

// lockFile locks nothing.
func lockFile(context.Context, string) (unlock func(), err error) { return func() {}, nil }
