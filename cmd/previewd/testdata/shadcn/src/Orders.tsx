import { zodResolver } from '@hookform/resolvers/zod'
import * as Tabs from '@radix-ui/react-tabs'
import * as Tooltip from '@radix-ui/react-tooltip'
import { useQuery } from '@tanstack/react-query'
import { format, subDays } from 'date-fns'
import { Coffee, Leaf, Plus } from 'lucide-react'
import { useState } from 'react'
import { useForm } from 'react-hook-form'
import { Bar, BarChart, ResponsiveContainer, XAxis, YAxis } from 'recharts'
import { toast } from 'sonner'
import { z } from 'zod'

import { Button, Dialog, Tick } from '@/ui'

const order = z.object({ tea: z.string().min(2), cups: z.coerce.number().int().positive() })
type Order = z.infer<typeof order>

export function Orders() {
  const [orders, setOrders] = useState<Order[]>([{ tea: 'Sencha', cups: 2 }])
  const week = useQuery({ queryKey: ['week'], queryFn: async () => [...Array(7)].map((_, i) => ({ day: format(subDays(new Date(), i), 'EEE'), cups: i * 3 })) })
  const form = useForm<Order>({ resolver: zodResolver(order) as never })
  const add = form.handleSubmit(value => {
    setOrders(all => [...all, value])
    toast.success(`${value.cups} cups of ${value.tea}`)
  })
  return (
    <Tabs.Root defaultValue="orders" className="mx-auto max-w-3xl space-y-4 p-8">
      <Tabs.List className="grid grid-cols-2 gap-2 rounded-md bg-slate-100 p-1">
        <Tabs.Trigger value="orders" className="rounded px-3 py-1.5 data-[state=active]:bg-white"><Coffee className="mr-2 inline h-4 w-4" />Orders</Tabs.Trigger>
        <Tabs.Trigger value="week" className="rounded px-3 py-1.5 data-[state=active]:bg-white"><Leaf className="mr-2 inline h-4 w-4" />Week</Tabs.Trigger>
      </Tabs.List>
      <Tabs.Content value="orders">
        <ul className="divide-y divide-slate-200">
          {orders.map((one, i) => <li key={i} className="flex justify-between py-2"><span>{one.tea}</span><Tick label={`${one.cups} cups`} /></li>)}
        </ul>
        <Dialog title="An order" trigger={<Button size="sm"><Plus className="mr-2 h-4 w-4" />Add</Button>}>
          <form onSubmit={add} className="mt-4 space-y-2">
            <input className="w-full rounded border px-3 py-2" {...form.register('tea')} />
            <input className="w-full rounded border px-3 py-2" type="number" {...form.register('cups')} />
            <Button type="submit">Send</Button>
          </form>
        </Dialog>
      </Tabs.Content>
      <Tabs.Content value="week">
        <Tooltip.Provider>
          <ResponsiveContainer width="100%" height={240}>
            <BarChart data={week.data ?? []}><XAxis dataKey="day" /><YAxis /><Bar dataKey="cups" className="fill-emerald-600" /></BarChart>
          </ResponsiveContainer>
        </Tooltip.Provider>
      </Tabs.Content>
    </Tabs.Root>
  )
}
