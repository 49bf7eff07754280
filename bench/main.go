// Command bench measures Mailpouch beside the limits and beside what people use
// instead, all in one run on one machine, and writes what came out.
//
//	go run .                   everything, to the terminal
//	go run . --quick           the same with few mails, in two minutes
//	go run . --docs ../docs    and write the pages and plots
//
// It starts its own servers (redis-server has to be installed), builds the programs that
// it measures, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/report"
	"github.com/mailpouch/mailpouch/bench/scenario"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	redis.SetLogger(silence{}) // what matters comes back as an error
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// options are the command line.
type options struct {
	quick   bool
	rounds  int
	only    string
	docs    string
	readme  string
	json    string
	compare string
	from    string
	root    string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.quick, "quick", false, "few mails and one round: in two minutes, to see that it works")
	flags.IntVar(&o.rounds, "rounds", 0, "rounds of each comparison (3, or 1 with --quick)")
	flags.StringVar(&o.only, "only", "", "what to run, separated by commas: scenarios ("+strings.Join(names(), ", ")+"),\nor some contenders of one, as drain/single, where * stands for anything: bulk*/client")
	flags.StringVar(&o.docs, "docs", "", "write performance.md, its plots and scale.md into this directory")
	flags.StringVar(&o.readme, "readme", "", "write the most important results into this page, between its marks")
	flags.StringVar(&o.json, "json", "", "write the results as JSON into this file")
	flags.StringVar(&o.compare, "compare", "", "show the results beside those of this JSON file")
	flags.StringVar(&o.from, "from", "", "measure nothing: write the pages anew from the results in this JSON file")
	flags.StringVar(&o.root, "root", "..", "the tree to be measured")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q: there are flags only", flags.Arg(0))
	}
	if o.rounds <= 0 {
		o.rounds = 3
		if o.quick {
			o.rounds = 1
		}
	}
	for _, pattern := range o.chosen() {
		if pattern != profiles && len(pick(scenario.Size{}, pattern)) == 0 {
			return o, fmt.Errorf("--only: %q is not one of %s, nor one of these with a slash and the key of a contender", pattern, strings.Join(names(), ", "))
		}
	}
	return o, nil
}

// profiles is what --only calls the profiles, which are no comparison.
const profiles = "profile"

func names() []string {
	var all []string
	for _, s := range scenario.Table(scenario.Size{}) {
		all = append(all, s.Name)
	}
	return append(all, profiles)
}

// chosen is what is to be run.
func (o options) chosen() []string {
	if o.only == "" {
		return names()
	}
	return strings.Split(o.only, ",")
}

// pick is the scenarios that one of the patterns asks for, with what they ask for of each.
func pick(size scenario.Size, patterns ...string) []scenario.Scenario {
	var all []scenario.Scenario
	for _, s := range scenario.Table(size) {
		if s = s.Only(patterns...); len(s.Entries) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.from != "" {
		return o.rewrite()
	}
	var old *report.Run
	if o.compare != "" {
		if old, err = report.ReadJSON(o.compare); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "mailpouch-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	start := time.Now()
	say := func(text string) { fmt.Fprintf(stderr, "%5.0fs  %s\n", time.Since(start).Seconds(), text) }
	say("building")
	programs, err := harness.Build(ctx, o.root, dir)
	if err != nil {
		return err
	}
	r := &report.Run{Date: start.UTC().Truncate(time.Second), Quick: o.quick}
	if r.Machine, err = harness.Describe(ctx, o.root); err != nil {
		return err
	}
	if err := o.measure(ctx, r, programs, say); err != nil {
		return err
	}
	r.Took = time.Since(start).Round(time.Second)
	r.Goals = scenario.Goals(r)
	return o.write(r, old, stdout)
}

// measure runs what was chosen.
func (o options) measure(ctx context.Context, r *report.Run, programs harness.Programs, say func(string)) error {
	size := scenario.Size{Quick: o.quick, Rounds: o.rounds}
	chosen := o.chosen()
	for _, s := range pick(size, chosen...) {
		result, err := s.Run(ctx, programs, size, say)
		if err != nil {
			return err
		}
		r.Scenarios = append(r.Scenarios, result)
	}
	if !slices.Contains(chosen, profiles) {
		return nil
	}
	say("profiles")
	var err error
	r.Profiles, err = scenario.Profiles(ctx, programs, size, r)
	return err
}

func (o options) write(r, old *report.Run, stdout io.Writer) error {
	fmt.Fprint(stdout, report.Text(r))
	if old != nil {
		fmt.Fprint(stdout, report.Compare(old, r))
	}
	if o.json != "" {
		if err := report.WriteJSON(o.json, r); err != nil {
			return err
		}
	}
	return o.pages(r)
}

// pages writes what people read.
func (o options) pages(r *report.Run) error {
	if o.readme != "" {
		if err := report.WriteReadme(o.readme, r.Quick, scenario.Highlights(r)); err != nil {
			return err
		}
	}
	if o.docs == "" {
		return nil
	}
	if err := report.WritePages(o.docs, r, scenario.Costs(r)); err != nil {
		return err
	}
	return report.WritePlots(filepath.Join(o.docs, "performance"), r)
}

// rewrite writes the pages from an earlier run, as after a change of their words.
func (o options) rewrite() error {
	r, err := report.ReadJSON(o.from)
	if err != nil {
		return err
	}
	r.Goals = scenario.Goals(r)
	return o.pages(r)
}
