import * as Checkbox from '@radix-ui/react-checkbox'
import * as DialogParts from '@radix-ui/react-dialog'
import * as LabelParts from '@radix-ui/react-label'
import { Slot } from '@radix-ui/react-slot'
import { cva, type VariantProps } from 'class-variance-authority'
import { clsx, type ClassValue } from 'clsx'
import { Check, X } from 'lucide-react'
import { forwardRef, type ButtonHTMLAttributes, type ReactNode } from 'react'
import { twMerge } from 'tailwind-merge'

export const cn = (...names: ClassValue[]) => twMerge(clsx(names))

const button = cva('inline-flex items-center rounded-md text-sm font-medium transition-colors focus-visible:ring-2 disabled:opacity-50', {
  variants: {
    variant: { default: 'bg-slate-900 text-white hover:bg-slate-700', outline: 'border border-slate-300 hover:bg-slate-100' },
    size: { default: 'h-10 px-4 py-2', sm: 'h-9 px-3' },
  },
  defaultVariants: { variant: 'default', size: 'default' },
})

export type ButtonProps = ButtonHTMLAttributes<HTMLButtonElement> & VariantProps<typeof button> & { asChild?: boolean }

export const Button = forwardRef<HTMLButtonElement, ButtonProps>(({ className, variant, size, asChild, ...rest }, ref) => {
  const Part = asChild ? Slot : 'button'
  return <Part ref={ref} className={cn(button({ variant, size }), className)} {...rest} />
})
Button.displayName = 'Button'

export function Dialog({ title, trigger, children }: { title: string; trigger: ReactNode; children: ReactNode }) {
  return (
    <DialogParts.Root>
      <DialogParts.Trigger asChild>{trigger}</DialogParts.Trigger>
      <DialogParts.Portal>
        <DialogParts.Overlay className="fixed inset-0 bg-black/60 data-[state=open]:animate-in data-[state=open]:fade-in-0" />
        <DialogParts.Content className="fixed left-1/2 top-1/2 w-full max-w-lg -translate-x-1/2 -translate-y-1/2 rounded-lg bg-white p-6 shadow-lg">
          <DialogParts.Title className="text-lg font-semibold">{title}</DialogParts.Title>
          {children}
          <DialogParts.Close className="absolute right-4 top-4"><X className="h-4 w-4" /></DialogParts.Close>
        </DialogParts.Content>
      </DialogParts.Portal>
    </DialogParts.Root>
  )
}

export function Tick({ label, ...rest }: Checkbox.CheckboxProps & { label: string }) {
  return (
    <LabelParts.Root className="flex items-center gap-2 text-sm">
      <Checkbox.Root className="h-4 w-4 rounded border border-slate-400" {...rest}>
        <Checkbox.Indicator><Check className="h-3 w-3" /></Checkbox.Indicator>
      </Checkbox.Root>
      {label}
    </LabelParts.Root>
  )
}
