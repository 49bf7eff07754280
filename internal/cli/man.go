package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli/manpage"
	"github.com/mailpouch/mailpouch/settings"
)

// manCommand is for people who package the program. It is hidden from the help.
func manCommand(std Streams) *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Write the manual pages into a directory",
		RunE: func(c *cobra.Command, args []string) error {
			n, err := writePages(c.Root(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(std.Out, "%d pages written\n", n)
			return nil
		},
	}
}

func writePages(root *cobra.Command, dir string) (int, error) {
	date, err := buildDate()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // manual pages are for everybody
		return 0, err
	}
	pages := manpage.Pages(root, manpage.Info{Date: date, Version: Version(), Settings: settings.Describe(settings.Default())})
	for _, p := range pages {
		if err := os.WriteFile(filepath.Join(dir, p.Name), []byte(p.Text), 0o644); err != nil { //nolint:gosec // as above
			return 0, err
		}
	}
	return len(pages), nil
}

// buildDate is today, or the time in SOURCE_DATE_EPOCH, which packagers set for
// reproducible builds (reproducible-builds.org).
func buildDate() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, Exitf(ExitUsage, "SOURCE_DATE_EPOCH: %q is not a number of seconds", epoch)
	}
	return time.Unix(seconds, 0), nil
}
