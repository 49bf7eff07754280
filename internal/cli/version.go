package cli

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"
)

// version is set by builds without the git history, such as that of the container image:
// -ldflags "-X github.com/mailpouch/mailpouch/internal/cli.version=v1.2.3".
// The linker can set nothing but a variable.
var version string

// Version is what --version prints: the version that the linker set, or else the one
// that Go wrote into the binary (the module's version with "go install", a tag or a commit
// in a clone), and the Go release and platform that it was built for.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return describe(version, info)
}

func describe(stamp string, info *debug.BuildInfo) string {
	name := cmp.Or(stamp, strings.Trim(info.Main.Version, "()"), "devel")
	return name + " (" + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}
