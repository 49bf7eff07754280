package metrics

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// labels are the values of the labels that the settings name.
type labels struct{ mailers, queues, tags names }

// mailer is the value for a mailer, "" being the default one.
func (l labels) mailer(name string) string { return l.mailers.known(name, defaultMailer) }

// queue is the value for a queue.
func (l labels) queue(name string) string { return l.queues.known(name, "") }

// defaultMailer is what the mailer without a name is called in labels.
const defaultMailer = "default"

// other is the label of names that are not configured. They come from outside, and there
// may be any number of them.
const other = "other"

// names are the values that a label may have.
type names []string

// known returns the name, or other. fallback is what "" means.
func (n names) known(name, fallback string) string {
	name = cmp.Or(name, fallback)
	if slices.Contains(n, name) {
		return name
	}
	return other
}

// class is the class of an error, as the value of a label. The error may be a relay's reply,
// or one from before the relay was asked.
func class(err error) string {
	var failure *mailer.SendError
	if !errors.As(err, &failure) && !mailer.IsBadInput(err) {
		return "none"
	}
	return mailer.ClassOf(err).String()
}

// code is the reply code in an error, as the value of a label.
func code(err error) string {
	var failure *mailer.SendError
	if !errors.As(err, &failure) || failure.Code < 200 || failure.Code > 599 {
		return "none"
	}
	return strconv.Itoa(failure.Code)
}

// step is the step of a conversation that an error names, as the value of a label.
func step(err error) string {
	var failure *mailer.SendError
	if !errors.As(err, &failure) {
		return other
	}
	known := []mailer.Step{
		mailer.StepRender, mailer.StepPolicy, mailer.StepConnect, mailer.StepGreet, mailer.StepHello, mailer.StepTLS, mailer.StepAuth,
		mailer.StepReset, mailer.StepMail, mailer.StepRcpt, mailer.StepData, mailer.StepBody, mailer.StepEnd,
	}
	if !slices.Contains(known, failure.Step) {
		return other
	}
	return stepLabel(failure.Step)
}

// stepLabel writes a step as the value of a label: "mail", "end_of_data".
func stepLabel(s mailer.Step) string { return strings.ReplaceAll(strings.ToLower(string(s)), " ", "_") }
