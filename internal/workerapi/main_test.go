package workerapi_test

import (
	"testing"

	"github.com/previewd/previewd/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
