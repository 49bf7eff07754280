package workercli

import (
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/cli/manpage/manpagetest"
)

func TestManPages(t *testing.T) {
	manpagetest.Check(t, newCommand(cli.Streams{}, backends.Builtin()))
}
