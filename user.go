package previewd

import "time"

// User is who a verified token speaks for.
type User struct {
	ID        string
	SessionID string    // of the token, when it names one
	Operator  bool      // may use the routes for operators
	Expires   time.Time // when the token does; zero: never
}

// MaxUserID is how many bytes a user's id may have.
const MaxUserID = 128
