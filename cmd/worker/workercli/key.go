package workercli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/replacefile"
	"github.com/mailpouch/mailpouch/settings"
)

func keyCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "key",
		Short: "The keys that other programs hand mail in with",
		Long: `The keys that other programs hand mail in with, over SMTP and over HTTP: a line each
in the file that EMAIL_API_KEYS_FILE names, with the hash of the key's secret and
what its program may do. Those who run read the file again at SIGHUP ("worker reload").`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprint(std.Err, c.UsageString())
			return cli.Exitf(cli.ExitUsage, "a command is expected")
		},
	}
	c.PersistentFlags().StringVar(&file, "file", "", "the `file` of keys, instead of that of EMAIL_API_KEYS_FILE")
	path := func() (string, error) {
		if file != "" {
			return file, nil
		}
		s, err := cli.Settings(std, registry.Load)
		if err == nil && s.Intake.KeysFile == "" {
			err = cli.Exitf(cli.ExitUsage, "%s is not set: name the file of keys there, or with --file", settings.KeysFileVariable)
		}
		return s.Intake.KeysFile, err
	}
	c.AddCommand(keyNewCommand(std, path), keyListCommand(std, path), keyRemoveCommand(std, path))
	return c
}

// keyFlags are what a new key lets its program do.
type keyFlags struct {
	from, may           []string
	mailer, queue, rate string
}

func (f keyFlags) key(name string) (key intake.Key, secret string, err error) {
	key, secret = intake.NewKey(name)
	key.Mailer, key.Queue, key.Choices = f.mailer, f.queue, nil
	if key.From, err = intake.ParseSenders(strings.Join(f.from, ",")); err != nil {
		return key, "", cli.Exitf(cli.ExitUsage, "--%w", err)
	}
	if f.rate != "" {
		if err := key.Rate.UnmarshalText([]byte(f.rate)); err != nil {
			return key, "", cli.Exitf(cli.ExitUsage, "--rate: %w", err)
		}
	}
	for _, text := range f.may {
		var choice intake.Choice
		if err := choice.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
			return key, "", cli.Exitf(cli.ExitUsage, "--may: %w", err)
		}
		key.Choices = append(key.Choices, choice)
	}
	return key, secret, nil
}

func keyNewCommand(std cli.Streams, path func() (string, error)) *cobra.Command {
	var f keyFlags
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a key, and print its secret",
		Long: `Make a key, add it to the file, and print its secret: this once, for the file has its
hash alone. The secret is what its program logs in with over SMTP, as the password with
any user name, and what it sends over HTTP (Authorization: Bearer SECRET).

The key's messages have the tag api-key:NAME, and are this program's alone: no other
one sees them, cancels them or changes when they are due.

Exit codes: 0 done, 64 usage, among it a name that is there, 78 the file has a line that is no key.`,
		Example: `  worker key new shop --from example.com
  worker key new news --from news@example.com --mailer marketing --queue bulk --rate 100/s,50000/d
  worker key new app --may queue,tags,schedule --file keys`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, secret, err := f.key(args[0])
			if err != nil {
				return err
			}
			for name, n := range map[string]int{"from": len(key.From), "rate": len(key.Rate)} { // a variable of the shell that is not set is no leave to send as anybody
				if c.Flags().Changed(name) && n == 0 {
					return cli.Exitf(cli.ExitUsage, "--%s: is empty: leave it out for no limit", name)
				}
			}
			file, err := path()
			if err != nil {
				return err
			}
			if err := changeKeys(c.Context(), file, func(text string) (string, error) { return addKey(text, key) }); err != nil {
				return err
			}
			fmt.Fprintln(std.Out, secret)
			fmt.Fprintf(std.Err, "added the key %s to %s; the secret is shown this once. Those who run know the key after \"worker reload\"\n", key.Name, cli.Line(file))
			return nil
		},
	}
	c.Flags().StringSliceVar(&f.from, "from", nil, "who its messages may be from: `domains` (example.com; .example.com with those below it) and addresses; anybody if it is not given")
	c.Flags().StringVar(&f.mailer, "mailer", "", "the `mailer` of EMAIL_MAILERS that its messages go with")
	c.Flags().StringVar(&f.queue, "queue", "", "the `queue` that they wait in")
	c.Flags().StringVar(&f.rate, "rate", "", "how many it may hand in, such as 100/s or 10000/d, over all ways in together")
	c.Flags().StringSliceVar(&f.may, "may", []string{string(intake.ChooseTags), string(intake.ChooseSchedule)}, "what it may `choose` for each message: queue, mailer, mailing, tags, schedule; nothing if empty")
	return c
}

// addKey returns the text of a file with one key more.
func addKey(text string, key intake.Key) (string, error) {
	keys, err := intake.ReadKeys(strings.NewReader(text))
	if err != nil {
		return "", cli.Exit(cli.ExitConfig, err)
	}
	if slices.ContainsFunc(keys.All(), func(k intake.Key) bool { return k.Name == key.Name }) {
		return "", cli.Exitf(cli.ExitUsage, "there is a key %s already: worker key remove %s takes it away, and with it what its program logs in with", key.Name, key.Name)
	}
	line, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := intake.ReadKeys(strings.NewReader(string(line))); err != nil {
		return "", cli.Exitf(cli.ExitUsage, "%s", strings.TrimPrefix(err.Error(), "line 1: "))
	}
	return text + string(line) + "\n", nil
}

func keyListCommand(std cli.Streams, path func() (string, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys, and what their programs may do",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file, err := path()
			if err != nil {
				return err
			}
			keys, err := intake.ReadKeysFile(file)
			if err != nil {
				return cli.Exit(cli.ExitConfig, err)
			}
			t := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tFROM\tMAILER\tQUEUE\tRATE\tMAY CHOOSE")
			for _, k := range keys.All() {
				choices := make([]string, len(k.Choices))
				for i, c := range k.Choices {
					choices[i] = string(c)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, cmp.Or(cli.Line(strings.Join(k.From, ",")), "anybody"), cmp.Or(k.Mailer, "-"),
					cmp.Or(k.Queue, "-"), cmp.Or(k.Rate.String(), "-"), cmp.Or(strings.Join(choices, ","), "-"))
			}
			return t.Flush()
		},
	}
}

func keyRemoveCommand(std cli.Streams, path func() (string, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a key away",
		Long: `Take a key away: after "worker reload" its program is refused. What it has handed in
goes on. Exit codes: 0 done, 1 there is no such key, 78 the file has a line that is no key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := path()
			if err != nil {
				return err
			}
			if err := changeKeys(c.Context(), file, func(text string) (string, error) { return removeKey(text, args[0]) }); err != nil {
				return err
			}
			fmt.Fprintf(std.Out, "removed the key %s from %s; it is good until \"worker reload\"\n", cli.Line(args[0]), cli.Line(file))
			return nil
		},
	}
}

// removeKey returns the text of a file without a key. All else in it stays as it is.
func removeKey(text, name string) (string, error) {
	if _, err := intake.ReadKeys(strings.NewReader(text)); err != nil {
		return "", cli.Exit(cli.ExitConfig, err)
	}
	var rest strings.Builder
	for line := range strings.Lines(text) {
		var key struct {
			Name string `json:"name"`
		}
		if json.Unmarshal([]byte(line), &key) != nil || key.Name != name {
			rest.WriteString(line)
		}
	}
	if rest.Len() == len(text) {
		return "", cli.Exitf(cli.ExitNone, "there is no key %s", name)
	}
	return rest.String(), nil
}

// changeKeys replaces the text of the file of keys. Of two who do it at once neither loses what the other has done.
func changeKeys(ctx context.Context, path string, change func(text string) (string, error)) error {
	if dir := filepath.Dir(path); !isDir(dir) {
		return cli.Exitf(cli.ExitConfig, "there is no directory %s for the file of keys: make it, or name another file (--file, %s)", cli.Line(dir), settings.KeysFileVariable)
	}
	unlock, err := replacefile.Lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	before, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cli.Exit(cli.ExitConfig, err)
	}
	text, err := change(string(before))
	if err != nil {
		return err
	}
	if err := replacefile.Write(path, text); err != nil {
		return cli.Exit(cli.ExitConfig, err)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
