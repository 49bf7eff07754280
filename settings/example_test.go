package settings_test

import (
	"fmt"
	"os"

	"github.com/mailpouch/mailpouch/settings"
)

// setenv sets variables, as a service's environment file would, until done is called.
func setenv(variables ...string) (done func()) {
	for i := 0; i < len(variables); i += 2 {
		_ = os.Setenv(variables[i], variables[i+1])
	}
	return func() {
		for i := 0; i < len(variables); i += 2 {
			_ = os.Unsetenv(variables[i])
		}
	}
}

func ExampleLoad() {
	defer setenv(
		"EMAIL_HOST", "smtp.example.com", "EMAIL_USE_TLS", "true", "EMAIL_PORT", "587",
		"EMAIL_HOST_USER", "shop", "EMAIL_HOST_PASSWORD", "SECRET",
		"EMAIL_TIMEUOT", "30", // mistyped
	)()
	s, warnings, err := settings.Load()
	fmt.Println(s.SMTP.Hosts, s.SMTP.Port, s.SMTP.User, s.SMTP.Password, err)
	fmt.Println(warnings)
	// Output:
	// smtp.example.com 587 shop [redacted] <nil>
	// [EMAIL_TIMEUOT: is not a setting and has no effect; did you mean EMAIL_TIMEOUT?]
}

// Everything that is wrong is reported at once.
func ExampleProblems() {
	defer setenv("EMAIL_PORT", "mail", "EMAIL_USE_TLS", "true", "EMAIL_USE_SSL", "true")()
	_, _, err := settings.Load()
	fmt.Println(err)
	// Output:
	// EMAIL_PORT: "mail" is not a whole number
	// EMAIL_USE_TLS: excludes EMAIL_USE_SSL: set the one that the server wants, most often EMAIL_USE_TLS on port 587 or EMAIL_USE_SSL on port 465
}

// More mailers beside the default one, each with a server of its own.
func ExampleSettings_Named() {
	defer setenv(
		"EMAIL_URL", "smtp+starttls://shop:SECRET@smtp.example.com",
		"EMAIL_MAILERS", "marketing",
		"EMAIL_MARKETING_URL", "smtps://bulk:SECRET@bulk.example.com",
	)()
	s, _, err := settings.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range append([]string{""}, s.Mailers()...) {
		named, err := s.Named(name)
		fmt.Printf("%q %v %d %v %v\n", named.Using, named.SMTP.Hosts, named.SMTP.Port, named.SMTP.User, err)
	}
	_, err = s.Named("marketng")
	fmt.Println(err)
	// Output:
	// "" smtp.example.com 587 shop <nil>
	// "marketing" bulk.example.com 465 bulk <nil>
	// settings: the mailer "marketng" is not configured; did you mean marketing? (EMAIL_MAILERS has marketing)
}
