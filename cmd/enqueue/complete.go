package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mailpouch/mailpouch/settings"
)

// addCompletions adds shell completion of arguments and flags: files where a file is read,
// the names of queues and mailers, and nothing elsewhere.
func addCompletions(c *cobra.Command) {
	for _, sub := range c.Commands() {
		addCompletions(sub)
	}
	switch {
	case c.HasSubCommands():
	case c.Name() == "bulk", c.Name() == "render":
		c.ValidArgsFunction = oneFile
	default:
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		var complete cobra.CompletionFunc
		switch f.Name {
		case "body-file", "html-file", "attach":
			return
		case "eml":
			complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		case "queue":
			complete = completeNames(func(s settings.Settings) []string { return slices.Collect(maps.Keys(s.Worker.Queues)) })
		case "ids":
			return
		case "using", "mailer":
			complete = completeNames(func(s settings.Settings) []string { return append(s.Mailers(), settings.DefaultMailer) })
		default:
			complete = cobra.NoFileCompletions
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, complete) // it only fails for a flag that is not there
	})
}

func oneFile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completeNames offers names that are in the settings.
func completeNames(names func(settings.Settings) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		s, _, err := settings.Loader{Producer: true}.Load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all := slices.DeleteFunc(names(s), func(name string) bool { return !strings.HasPrefix(name, begun) })
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
}
