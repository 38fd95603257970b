package previewd_test

import "github.com/previewd/previewd"

// creationModel is one user's wish for one project on its way from a browser
// over the gateway to the worker. What the worker does with the key is
// DecideKey's to say. A request on its way may arrive late, never, or any
// number of times, every wait may time out, and both services may die between
// any two transactions. None of it is counted, so that no bound hides a fault:
// all copies of the request are alike, which keeps the states few.
type creationModel struct {
	// Each of these takes one part of the protocol away, to show that the model would notice.
	noIntent        bool // A: the gateway asks the worker, then stores the project
	noDedup         bool // B: the worker does not look at the key; or E: it gets a new one each time
	noReconciler    bool // C: what a request has left pending stays so until the user comes back
	keyExpires      bool // D: the worker may forget the key while the intent is pending
	keyLater        bool // F: the key is stored in a transaction of its own, after the project's
	timeoutFails    bool // G: no answer is taken for a refusal
	billsLater      bool // J: the billing session is opened in a transaction of its own, after the confirmation
	billsTwice      bool // H: and it is not unique
	rejectionIsLost bool // a definite refusal is not stored under the key

	decisions map[previewd.KeyDecision]bool // every decision that a request has got
}

// creation is the state of the two databases, the two processes and the network.
type creation struct {
	intent   intentState
	recorded uint8 // the project in the gateway's database, from 1
	bills    uint8 // its billing sessions

	projects uint8 // in the worker's database: 1 is right, 2 is a duplicate
	key      uint8 // the answer stored under the key: a project, refusedAnswer, or 0 while it is free
	pruned   bool  // of the key's answer only the resource is left

	handlers   [2]handler // browsers' requests: a second one comes by a double click or a retry
	reconciler handler
	keyless    uint8 // F: the project that the worker has made and whose key it has yet to store

	request bool // on its way; all of them are alike, key and content
}

type intentState uint8

const (
	intentNone intentState = iota
	intentPending
	intentConfirmed
	intentRejected
)

// handler is what one thread of the gateway is at; it is lost in a crash.
type handler struct {
	at     handlerAt
	answer uint8
}

type handlerAt uint8

const (
	idle handlerAt = iota
	asking
	waiting
	answered
	billing
)

// refusedAnswer is the answer of a worker that refuses for good, such as a quota's.
const refusedAnswer = 255

// The request's key belongs to this operation and content.
const (
	modelOperation   = "POST /v1/create-preview-for-new-project"
	modelFingerprint = "these files"
)

// storedKey is the key as the worker's database would hold it.
func (c creation) storedKey() *previewd.StoredKey {
	if c.key == 0 {
		return nil
	}
	return &previewd.StoredKey{Operation: modelOperation, Fingerprint: modelFingerprint, Answered: !c.pruned}
}

// steps tells of all that can happen next.
func (m creationModel) steps(c creation, to walker[creation]) {
	walk := func(step string, next creation, fair bool) {
		if a, b := next.handlers[0], next.handlers[1]; a.at > b.at || a.at == b.at && a.answer > b.answer {
			next.handlers[0], next.handlers[1] = b, a // the handlers are alike
		}
		to(step, next, fair)
	}
	m.browserAsks(c, walk)
	for k := range c.handlers {
		m.gatewayGoesOn(c, walk, func(c *creation) *handler { return &c.handlers[k] })
	}
	if !m.noReconciler && c.intent == intentPending && c.reconciler.at == idle {
		next := c
		next.reconciler.at = asking
		walk("reconciler takes the intent", next, true)
	}
	m.gatewayGoesOn(c, walk, func(c *creation) *handler { return &c.reconciler })
	m.workerGoesOn(c, walk)
	m.networkDelivers(c, walk)
	m.misfortunes(c, walk)
}

// browserAsks is the first transaction of the gateway: the intent is stored
// before anybody is asked for anything.
func (m creationModel) browserAsks(c creation, to walker[creation]) {
	if c.handlers[0].at != idle { // sorted: idle ones come first
		return
	}
	if c.intent == intentConfirmed || c.intent == intentRejected {
		return // it gets the stored answer
	}
	c.handlers[0].at = asking
	if !m.noIntent {
		c.intent = intentPending // or it takes over what another request has left so
	}
	to("browser asks", c, false)
}

// gatewayGoesOn is what a handler or the reconciler does next.
func (m creationModel) gatewayGoesOn(c creation, to walker[creation], of func(*creation) *handler) {
	next := c
	h := of(&next)
	switch h.at {
	case asking:
		h.at, next.request = waiting, true
		to("gateway sends", next, true)
	case waiting:
		*h = handler{}
		if m.timeoutFails && c.intent == intentPending {
			next.intent = intentRejected
		}
		to("gateway waits no longer", next, true)
	case answered:
		m.gatewayConfirms(next, to, of)
	case billing:
		*h = handler{}
		if c.bills == 0 || m.billsTwice {
			next.bills = min(c.bills+1, 2)
		}
		to("gateway opens a billing session", next, true)
	}
}

// gatewayConfirms is the gateway's second transaction. An intent that another
// thread has settled stays as it is.
func (m creationModel) gatewayConfirms(c creation, to walker[creation], of func(*creation) *handler) {
	h := of(&c)
	answer := h.answer
	*h = handler{}
	open := m.noIntent && c.recorded == 0 || c.intent == intentPending
	if answer == refusedAnswer {
		if open && !m.noIntent {
			c.intent = intentRejected
		}
		to("gateway stores the refusal", c, true)
		return
	}
	if open {
		c.recorded = answer
		if !m.noIntent {
			c.intent = intentConfirmed
		}
		if !m.billsLater {
			c.bills = 1
		}
	}
	if m.billsLater && c.recorded != 0 {
		of(&c).at = billing
	}
	to("gateway stores the project", c, true)
}

// networkDelivers lets the request arrive, with or without a copy that arrives
// later. The answer reaches a thread that waits, or nobody.
func (m creationModel) networkDelivers(c creation, to walker[creation]) {
	if !c.request {
		return
	}
	for _, copied := range []bool{false, true} {
		next := c
		next.request = copied
		m.workerHears(next, to)
	}
}

// workerHears is the worker's one transaction.
func (m creationModel) workerHears(c creation, to walker[creation]) {
	decision := previewd.DecideKey(c.storedKey(), modelOperation, modelFingerprint)
	m.decisions[decision] = true
	if m.noDedup {
		decision = previewd.KeyExecute
	}
	if decision != previewd.KeyExecute {
		// A pruned refusal has no resource to tell of: the row must still say that it was one.
		m.answer(c, "worker replays", c.key, to)
		return
	}
	if c.keyless != 0 {
		return // busy
	}
	refused := c
	if !m.rejectionIsLost {
		refused.key = refusedAnswer
	}
	m.answer(refused, "worker refuses", refusedAnswer, to)
	c.projects = min(c.projects+1, 2) // a third one shows nothing new
	if m.keyLater {
		c.keyless = c.projects
		to("worker creates, without the key", c, true)
		return
	}
	c.key = c.projects
	m.answer(c, "worker creates", c.projects, to)
}

// workerGoesOn stores the key of a project that was made without it.
func (m creationModel) workerGoesOn(c creation, to walker[creation]) {
	if c.keyless != 0 {
		answer := c.keyless
		c.key, c.keyless = answer, 0
		m.answer(c, "worker stores the key", answer, to)
	}
}

func (m creationModel) answer(c creation, step string, answer uint8, to walker[creation]) {
	to(step+", nobody hears", c, false)
	hear := func(step string, of func(*creation) *handler) {
		next := c
		if h := of(&next); h.at == waiting {
			*h = handler{answered, answer}
			to(step, next, true)
		}
	}
	hear(step+", a handler hears", func(c *creation) *handler { return &c.handlers[0] })
	hear(step+", a handler hears", func(c *creation) *handler { return &c.handlers[1] })
	hear(step+", the reconciler hears", func(c *creation) *handler { return &c.reconciler })
}

// misfortunes are not fair: they may happen, but nothing may count on them.
func (m creationModel) misfortunes(c creation, to walker[creation]) {
	if c.request {
		next := c
		next.request = false
		to("request is lost", next, false)
	}
	crash := c
	crash.handlers, crash.reconciler = [2]handler{}, handler{}
	to("gateway dies", crash, false)
	if c.keyless != 0 {
		next := c
		next.keyless = 0
		to("worker dies", next, false)
	}
	if c.key != 0 && m.keyExpires && c.intent == intentPending {
		next := c
		next.key = 0
		to("key expires", next, false)
	}
	if c.key != 0 && c.intent != intentPending {
		next := c
		next.pruned = true // a body is kept for longer than an intent is pending
		to("answer is pruned", next, false)
	}
}
