package manpage_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli/manpage"
	"github.com/mailpouch/mailpouch/internal/cli/manpage/manpagetest"
)

func tree() *cobra.Command {
	root := &cobra.Command{Use: "tool", Short: "Do things", Long: "Do things.\n\n.Dots and 'quotes\n'begin\\lines - here.\n\n  as  it\n  is", Example: "  tool do \"x\"\n\ttab"}
	sub := &cobra.Command{Use: "do THING", Short: "Do one, größer", Run: func(*cobra.Command, []string) {}}
	sub.Flags().StringP("name", "n", "x", "a `word` with \"quotes\"")
	sub.Flags().Bool("secret", false, "nobody sees this")
	_ = sub.Flags().MarkHidden("secret")
	hidden := &cobra.Command{Use: "hide", Hidden: true, Run: sub.Run}
	root.AddCommand(sub, hidden)
	return root
}

func TestCheck(t *testing.T) { manpagetest.Check(t, tree()) }

func TestPages(t *testing.T) {
	pages := manpage.Pages(tree(), manpage.Info{Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Version: "v1"})
	if len(pages) != 2 || pages[0].Name != "tool.1" || pages[1].Name != "tool-do.1" {
		t.Fatalf("%+v", pages)
	}
	for _, want := range []string{`.TH "TOOL" "1" "2026-01-02" "Mailpouch v1" "Mailpouch"`, `tool \- Do things`,
		"\n\\&.Dots and 'quotes\n\\&'begin\\elines \\- here.\n", ".nf\n  as  it\n  is\n.fi", "\n.B \"do\"\n", `.BR "tool\-do" "(1)"`} {
		if !strings.Contains(pages[0].Text, want) {
			t.Errorf("no %q in\n%s", want, pages[0].Text)
		}
	}
	for _, want := range []string{`\fB\-n, \-\-name\fR \fIword\fR` + "\na word with \"quotes\" (default: x).", `gr\[u00F6]\[u00DF]er`, `.BR "tool" "(1)"`} {
		if !strings.Contains(pages[1].Text, want) {
			t.Errorf("no %q in\n%s", want, pages[1].Text)
		}
	}
	if strings.Contains(pages[1].Text, "secret") {
		t.Error("a hidden flag is shown")
	}
}
