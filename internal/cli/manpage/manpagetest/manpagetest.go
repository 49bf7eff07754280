// Package manpagetest checks the manual pages of a command.
package manpagetest

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mailpouch/mailpouch/internal/cli/manpage"
	"github.com/mailpouch/mailpouch/settings"
)

// Check wants a page for every command that is shown, with every flag that is shown and
// the whole help, and that mandoc and groff, as far as they are installed, have
// nothing to say against it.
func Check(t *testing.T, root *cobra.Command) {
	t.Helper()
	info := manpage.Info{Date: time.Now(), Version: "v0", Settings: settings.Describe(settings.Default())}
	pages := map[string]string{}
	for _, p := range manpage.Pages(root, info) {
		pages[p.Name] = p.Text
		t.Run(p.Name, func(t *testing.T) { checkRoff(t, p.Text) })
	}
	commands := checkCommand(t, root, pages)
	if len(pages) != commands {
		t.Errorf("%d pages for %d commands", len(pages), commands)
	}
	for _, s := range info.Settings {
		if !strings.Contains(pages[root.Name()+".1"], "\n.B \""+s.Name+"\"\n") {
			t.Errorf("the setting %s is not on the page of %s", s.Name, root.Name())
		}
	}
}

// checkCommand returns how many commands there are from c down.
func checkCommand(t *testing.T, c *cobra.Command, pages map[string]string) int {
	t.Helper()
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	page := plain(pages[name])
	for line := range strings.SplitSeq(c.Short+"\n"+c.Long+"\n"+c.Example, "\n") {
		if !strings.Contains(page, strings.ReplaceAll(line, "\t", "    ")) {
			t.Errorf("%s has no %q", name, line)
		}
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if value, usage := pflag.UnquoteUsage(f); !f.Hidden && !strings.Contains(page, strings.TrimSpace("--"+f.Name+" "+value)+"\n"+usage) {
			t.Errorf("%s has no --%s", name, f.Name)
		}
	})
	n := 1
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			n += checkCommand(t, sub, pages)
		}
	}
	return n
}

// plain undoes what roff needs.
func plain(page string) string {
	page = regexp.MustCompile(`\\\[u([0-9A-F]+)\]`).ReplaceAllStringFunc(page, func(s string) string {
		r, _ := strconv.ParseInt(s[3:len(s)-1], 16, 32)
		return string(rune(r))
	})
	return strings.NewReplacer(`\-`, "-", `\fB`, "", `\fR`, "", `\fI`, "", `\(dq`, `"`, `\&`, "", `\e`, `\`).Replace(page)
}

func checkRoff(t *testing.T, text string) {
	t.Helper()
	for _, checker := range []string{"mandoc -T lint -W warning", "groff -man -ww -z"} {
		words := strings.Fields(checker)
		if _, err := exec.LookPath(words[0]); err != nil {
			continue
		}
		c := exec.CommandContext(t.Context(), words[0], words[1:]...) //nolint:gosec // one of the two above
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", checker, err, fmt.Sprintf("%.2000s", out))
		}
	}
}
